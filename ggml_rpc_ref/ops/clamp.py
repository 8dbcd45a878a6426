"""CLAMP: each element limited to the range between two bounds.

    dst[i] = max(min(src0[i], max), min)     by comparison: a NaN element becomes max (or min, if that is larger)

src0, dst: F32 or F16, the same on both sides, the same ne, dense, evenly spaced rows; a client makes dst a view of src0. An F16
is compared in float32 and the bound rounded on the way back. Bounds in the wrong order give min; a NaN bound: min(x, NaN) =
NaN, max(x, NaN) = NaN. Empty: nothing is computed.

Source: ggml_clamp in ggml.c, ggml_compute_forward_clamp in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_same_dense_rows, require_same_even_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def oracle(node: Node) -> None:
    """Compare twice; where a comparison with NaN decides, it is false, as in C."""
    low, high = np.float32(node.f32("min")), np.float32(node.f32("max"))

    def clamped(x: np.ndarray) -> np.ndarray:
        below = np.where(x < high, x, high)
        return np.where(below > low, below, low)

    map_values(node, clamped)


OP = Op(
    name="CLAMP",
    sources=(Source("x", ("F32", "F16"), "dense, evenly spaced rows"),),
    types=("F32", "F16"),
    params=(Param("min", "f32", 0, "lower bound, which wins"), Param("max", "f32", 1, "upper bound")),
    shape=require_same_even_dense_rows,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
    later=(later("CLAMP.strides", shape=require_same_dense_rows),),
)
