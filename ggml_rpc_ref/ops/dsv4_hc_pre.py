"""DSV4_HC_PRE: the streams of DeepSeek V4's hyper-connections joined to one, each with its weight.

    dst[i, t] = sum over h of src0[i, h, t] * src1[h, t]

src0: F32, ne = (n, streams, T), streams >= 1. src1: F32, ne = (streams, T). dst: F32, ne = (n, T). Any strides.

Source: ggml_dsv4_hc_pre_impl in ggml.c; ggml_compute_forward_dsv4_hc_pre_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.stopping import checkpoint

GATED = Param("gated", "i32", 1, "not 0: src1 has a gate for each element")
SCALE = Param("scale", "f32", 0, "factor of the sum")


def is_gated(node: Node) -> bool:
    """Whether src1 has a gate for each element."""
    return node.op.reads("gated") and node.i32("gated") != 0


def shape(node: Node) -> None:
    """Refuse other dimensions, and no streams."""
    x, weights = node.source(0), node.source(1)
    n, streams, tokens, _ = x.ne
    node.require(streams >= 1 and x.ne[3] == 1, "x.ne (n, 1 or more streams, T)", x.ne, at=x)
    ne = (n, streams, tokens, 1) if is_gated(node) else (streams, tokens, 1, 1)
    node.require(weights.ne == ne, f"weights.ne {ne}", weights.ne, at=weights)
    node.require(node.dst.ne == (n, tokens, 1, 1), f"ne ({n}, {tokens})", node.dst.ne)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add up stream by stream, in float64."""
    x, weights, gated = node.source(0).array[0], node.source(1).array[0], is_gated(node)
    scale = np.float64(node.f32("scale")) if node.op.reads("scale") else 1.0
    for _, _, tokens, columns in element_blocks(node.dst.ne):
        total = np.zeros((tokens.stop - tokens.start, columns.stop - columns.start))
        for h in range(x.shape[1]):
            checkpoint()
            weight = weights[tokens, h, columns] if gated else weights[0, tokens, h, None]
            factor = 1.0 / (1.0 + np.exp(-weight.astype(np.float64))) if gated else weight.astype(np.float64)
            total += x[tokens, h, columns] * factor
        node.dst.array[0, 0, tokens, columns] = total * scale


def cost(node: Node) -> Cost:
    """Return the cost: stream by stream."""
    streams = node.source(0).ne[1]
    return Cost(0, elements(node) + streams * (1 + node.dst.nelements // 2**20) * CALL)


OP = Op(
    name="DSV4_HC_PRE",
    sources=(
        Source("x", ("F32",), "ne = (n, streams, T)"),
        Source("weights", ("F32",), "ne = (streams, T)"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    cost=cost,
    later=(later("DSV4_HC_PRE.scale", reads=(SCALE, GATED)),),
)
