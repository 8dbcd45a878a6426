"""OUT_PROD: multiply matrices column by column, the gradient of MUL_MAT with respect to its weights.

    dst[i3][i2][j][i] = sum over k of src0[i3 / r3][i2 / r2][k][i] * src1[i3][i2][k][j]

src0: ne = (m, k, b2, b3), F32 or a block type; dense rows. src1: F32 ne = (n, k, r2*b2, r3*b3), any strides. dst: F32
contiguous, ne = (m, n, r2*b2, r3*b3). A block type does not broadcast: r2 = r3 = 1. k = 0 gives zeros. NaN and infinities
spread as in sums of products. F16 and BF16 are refused, as upstream aborts on them.

Source: ggml_compute_forward_out_prod_f32 and _q_f32 in ggml-cpu/ops.cpp, ggml_out_prod in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source, later
from ggml_rpc_ref.ops.shared.matmul import MOST_PRODUCTS, WEIGHTS, grouped, require_whole_block_rows
from ggml_rpc_ref.ops.shared.slabs import slabs, spans
from ggml_rpc_ref.ops.tolerance import FLOAT32

TYPES = tuple(name for name in WEIGHTS if name not in ("F16", "BF16"))


def shape(node: Node) -> None:
    """Refuse operands of different k, matrices that do not broadcast, a result of other dimensions or with gaps."""
    a, b = node.source(0), node.source(1)
    node.require(a.ne[1] == b.ne[1], f"{a.ne[1]} rows as in src0", b.ne[1], at=b)
    for dim in (2, 3):
        n, shared = b.ne[dim], a.ne[dim]
        node.require(shared > 0 and n % shared == 0, f"ne[{dim}] a multiple of {shared}", n, at=b)
        one = n == shared or a.dtype.name == "F32"
        node.require(one, f"ne[{dim}] of {shared} as in src0, as {a.dtype.name} does not broadcast", n, at=b)
    want = (a.ne[0], b.ne[0], b.ne[2], b.ne[3])
    node.require(node.dst.ne == want and node.dst.is_contiguous, f"a contiguous result of ne {want}", node.dst.ne)
    require_whole_block_rows(node, a, node.dst)


def oracle(node: Node) -> None:
    """Add up the products of a slab of rows at a time."""
    a, b = node.source(0), node.source(1)
    total = np.zeros(node.dst.shape, np.float32)
    groups = a.ne[3], a.ne[2]
    with np.errstate(all="ignore"):
        for start, stop, x in slabs(a):
            # cut along src1's columns, so that no row of sums is split: each adds up in the same order
            for columns in spans(b.ne[0], max(1, MOST_PRODUCTS // max(1, a.ne[0] * (stop - start) * b.ne[2] * b.ne[3]))):
                y = np.ascontiguousarray(b.array[..., start:stop, columns])
                product = grouped(y, *groups).swapaxes(-1, -2) @ x[:, None, :, None]
                total[..., columns, :] += product.reshape(total[..., columns, :].shape)
    node.dst.store(total)


def cost(node: Node) -> Cost:
    """Return the cost: the result and one slab's share of it; where a is converted, a row of each of its matrices at least."""
    a = node.source(0)
    converted = 0 if a.dtype.name == "F32" else 4 * node.dst.nelements + 8 * a.ne[0] * a.ne[2] * a.ne[3]
    own = 8 * node.dst.nelements + 4 * node.source(1).nelements + converted
    return Cost(own, elements(node) + node.dst.nelements * node.source(0).ne[1] // PRODUCTS)


OP = Op(
    name="OUT_PROD",
    sources=(Source("a", TYPES, "ne = (m, k, b2, b3)"), Source("b", ("F32",), "ne = (n, k, r2*b2, r3*b3), any strides")),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    cost=cost,
    later=(later("OUT_PROD.f16", takes={0: ("F16",)}),),
)
