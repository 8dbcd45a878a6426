"""DSV4_HC_POST: a layer's output put back into the streams of DeepSeek V4's hyper-connections, which are mixed with each other.

    dst[i, d, t] = src0[i, t] * src2[d, t] + sum over s of src1[i, s, t] * src3[d, s, t]

src0 (x): F32, ne = (n, T). src1 (residual): F32, ne = (n, streams, T), streams >= 1. src2 (post): F32, ne = (streams, T). src3
(comb): F32, ne = (streams, streams, T), as DSV4_HC_COMB makes them. dst: F32, ne = (n, streams, T). Any strides.

Source: ggml_dsv4_hc_post in ggml.c; ggml_compute_forward_dsv4_hc_post_f32 in ggml-cpu/ops.cpp.
"""

from dataclasses import replace

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source, later
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import FLOAT32

SOURCES = (
    Source("x", ("F32",), "ne = (n, T)"),
    Source("residual", ("F32",), "ne = (n, streams, T)"),
    Source("post", ("F32",), "ne = (streams, T)"),
    Source("comb", ("F32",), "ne = (streams, streams, T)"),
)


def shape(node: Node) -> None:
    """Refuse other dimensions, and no streams."""
    x, residual, post, comb = node.source(0), node.source(1), node.source(2), node.optional(3)
    (n, tokens, _, _), streams = x.ne, residual.ne[1]
    node.require(x.ne[2:] == (1, 1), "a matrix x", x.ne, at=x)
    ne = (n, streams, tokens, 1)
    node.require(streams >= 1 and residual.ne == ne, f"residual.ne ({n}, 1 or more streams, {tokens})", residual.ne, at=residual)
    node.require(post.ne == (streams, tokens, 1, 1), f"post.ne ({streams}, {tokens})", post.ne, at=post)
    if comb is not None:
        node.require(comb.ne == (streams, streams, tokens, 1), f"comb.ne ({streams}, {streams}, {tokens})", comb.ne, at=comb)
    node.require(node.dst.ne == ne, f"ne {ne}", node.dst.ne)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute some tokens at a time, of a long row some columns, in float64."""
    n, streams, tokens, _ = node.dst.ne
    for some in spans(tokens, rows_per_slab(24 * streams * max(n, streams))):
        for columns in spans(n, rows_per_slab(24 * streams)):
            _mix(node, some, columns)


def _mix(node: Node, tokens: slice, columns: slice) -> None:
    x, residual, post = (node.source(slot).array[0] for slot in range(3))
    mixed = residual[tokens, :, columns].astype(np.float64)
    if (comb := node.optional(3)) is not None:
        mixed = comb.array[0, tokens].astype(np.float64).swapaxes(-1, -2) @ mixed
    node.dst.array[0, tokens, :, columns] = mixed + post[0, tokens, :, None] * x[0, tokens, None, columns].astype(np.float64)


def cost(node: Node) -> Cost:
    """Return the cost of the products; of one token at least, the matrix as a whole."""
    n, streams, tokens, _ = node.dst.ne
    parts = -(-tokens // rows_per_slab(24 * streams * max(n, streams))) * -(-n // rows_per_slab(24 * streams))
    return Cost(16 * streams * streams, elements(node) + node.dst.nelements * streams // PRODUCTS + (tokens + parts) * CALL)


OP = Op(
    name="DSV4_HC_POST",
    sources=SOURCES,
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    cost=cost,
    later=(later("DSV4_HC_POST.no-comb", sources=(*SOURCES[:3], replace(SOURCES[3], optional=True))),),
)
