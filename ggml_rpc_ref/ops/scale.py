"""SCALE: multiply by a number and add a number.

    dst[i] = src0[i] * scale + bias

src0: F32, contiguous. dst: F32, the same ne, contiguous; may be src0's memory. A bias of 0 (of either sign) is not added, so that
-0 stays -0. NaN and infinities by IEEE rules, in the parameters too. Empty: nothing is computed.

The CPU backend of 2.0.0 has a defect: whole vectors of a row become src0 + scale * bias, the last few elements the sum above.

Source: ggml_compute_forward_scale_f32 in ggml-cpu/ops.cpp (the sum is one fused multiply-add on most CPUs).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.elementwise import map_values
from ggml_rpc_ref.ops.shared.layout import require_contiguous, require_even_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse other dimensions than the source's, gaps on either side, and an nb[1] that is not the distance of rows.

    Where ne[1] is 1, a contiguous tensor may have any nb[1]; upstream steps by it through all rows.
    """
    src0 = node.source(0)
    node.require(node.dst.ne == src0.ne, f"ne {src0.ne} as the source", node.dst.ne)
    node.require(node.dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", node.dst.dtype.name)
    require_contiguous(node, src0, node.dst)
    require_even_rows(node, src0, node.dst)


def oracle(node: Node) -> None:
    """Compute the formula; with a bias in float64, where the product of two float32 is exact."""
    scale, bias = np.float32(node.f32("scale")), np.float32(node.f32("bias"))

    def scaled(x: F32Array) -> Array:
        # upstream, too, takes another loop without a bias (ggml_compute_forward_scale_f32): adding 0.0 would turn -0.0 into 0.0
        return x * scale if bias == 0 else x * np.float64(scale) + np.float64(bias)

    map_values(node, scaled)


OP = Op(
    name="SCALE",
    sources=(Source("x", ("F32",), "contiguous"),),
    types=("F32",),
    params=(Param("scale", "f32", 0, "factor"), Param("bias", "f32", 1, "summand")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0,),
    later=(later("SCALE.bf16", takes={0: ("BF16",)}, gives=("BF16",)),),
)
