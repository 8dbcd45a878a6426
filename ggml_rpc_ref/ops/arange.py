"""ARANGE: evenly spaced numbers.

    dst[i] = start + step * i     for i from 0 to ceil((stop - start) / step) - 1

No sources. dst: F32, contiguous, exactly that many elements (the quotient in float32). A client makes stop > start; negative
steps work as well. Parameters that are NaN, or a step of 0, give no number of elements and are refused.

Source: ggml_arange in ggml.c, ggml_compute_forward_arange_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse a result with gaps, or of another number of elements."""
    start, stop, step = (np.float32(node.f32(name)) for name in ("start", "stop", "step"))
    with np.errstate(all="ignore"):
        steps = float(np.ceil((stop - start) / step))
    node.require(steps == node.dst.nelements, f"{steps} elements", node.dst.nelements)
    node.require(node.dst.is_contiguous, "a contiguous result", node.dst.nb)
    require_dense_rows(node, node.dst)


def oracle(node: Node) -> None:
    """Compute the formula in float64 of the float32 parameters."""
    count = np.arange(node.dst.nelements).reshape(node.dst.shape)
    with np.errstate(all="ignore"):
        node.dst.store(node.f32("start") + node.f32("step") * count)


def cost(node: Node) -> Cost:
    """Return the cost: numbers in int64 and float64."""
    return Cost(32 * node.dst.nelements, elements(node))


OP = Op(
    name="ARANGE",
    sources=(),
    types=("F32",),
    params=(Param("start", "f32", 0, "the first"), Param("stop", "f32", 1, "beyond the last"), Param("step", "f32", 2, "distance")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    cost=cost,
)
