"""SILU_BACK: the gradient of SILU.

    dst[i] = src0[i] · s (1 + x (1 - s))     with x = src1[i], s = 1 / (1 + e⁻ˣ)

src0: the gradient of SILU's result. src1: what SILU was given. dst: all three F32 or all F16, the same ne, dense, evenly spaced
rows. s is a float32: 1 from 16.6 on, and 0 below -88.7, where an infinite src0 gives NaN. x = -inf gives NaN (0 times
infinity), +inf NaN likewise. Empty: nothing is computed.

Source: ggml_silu_back in ggml.c, ggml_silu_backward_f32 in ggml-cpu/vec.h.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_even_rows, require_ne, require_type
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse differing types or dimensions, rows with gaps or unevenly spaced."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    require_type(node, src0.dtype, src1, dst)
    require_ne(node, src0.ne, src1, dst)
    require_even_rows(node, src0, src1, dst)


def oracle(node: Node) -> None:
    """Compute the formula in float64 but for s, part by part."""
    grad, x = node.source(0).values(), node.source(1).values()
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            wide = x[block].astype(np.float64)
            s = np.float32(1) / (1.0 + np.exp(-wide)).astype(np.float32)
            part(node.dst, block).store(grad[block] * s * (1.0 + wide * (1.0 - s)))


OP = Op(
    name="SILU_BACK",
    sources=(Source("grad", ("F32", "F16"), "dense rows"), Source("x", ("F32", "F16"), "grad's type and ne")),
    types=("F32", "F16"),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0, 1),
)
