"""LEAKY_RELU: negative elements made smaller.

    dst[i] = (x if x > 0 else 0) + slope * (x if x < 0 else 0)     for x = src0[i], in float32

src0, dst: F32 or F16, the same on both sides, the same ne, dense, evenly spaced rows; may share memory. NaN gives 0 (if slope
is finite: slope times 0 is added to every element). Empty: nothing is computed.

Source: ggml_leaky_relu in ggml.c, ggml_vec_leaky_relu_f32 in ggml-cpu/vec.h.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_same_even_rows
from ggml_rpc_ref.ops.tolerance import Tolerance


def oracle(node: Node) -> None:
    """Compute the formula."""
    slope, zero = np.float32(node.f32("negative_slope")), np.float32(0)
    map_values(node, lambda x: np.where(x > 0, x, zero) + slope * np.where(x < 0, x, zero))


OP = Op(
    name="LEAKY_RELU",
    sources=(Source("x", ("F32", "F16"), "dense, evenly spaced rows"),),
    types=("F32", "F16"),
    params=(Param("negative_slope", "f32", 0, "factor of negative elements"),),
    shape=require_same_even_rows,
    oracle=oracle,
    tolerance=Tolerance(atol=1e-38, reason="with a fused multiply-add a product too small for float32 keeps its sign: -0 for 0"),
    in_place=(0,),
)
