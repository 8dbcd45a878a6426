"""FILL: every element the same number.

    dst[i] = c

src0: F32, of the same ne; its elements are not read, but stock clients send it. dst: F32, dense rows; may be src0's memory. c
may be NaN or infinite. Empty: nothing is computed.

Source: ggml_fill in ggml.c, ggml_compute_forward_fill_f32, _f16 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse another ne than the source's, and gaps within rows."""
    src0 = node.optional(0)
    if src0 is not None:
        node.require(src0.ne == node.dst.ne, f"ne {src0.ne} as src0", node.dst.ne)
        node.require(src0.dtype == node.dst.dtype, f"type {src0.dtype.name} as src0", node.dst.dtype.name)
    require_contiguous_rows(node, node.dst)


def oracle(node: Node) -> None:
    """Write the number everywhere."""
    with np.errstate(over="ignore"):
        node.dst.array[...] = np.float32(node.f32("c"))


OP = Op(
    name="FILL",
    sources=(Source("like", ("F32",), "of the result's ne, not read", optional=True),),
    types=("F32",),
    params=(Param("c", "f32", 0, "the number"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
    unread=(0,),
    later=(later("FILL.f16", takes={0: ("F16",)}, gives=("F16",)),),
)
