"""REPEAT: copies of a tensor, side by side, until they fill a larger one.

    dst[i] = src0[i mod ne of src0]     in every dimension

src0: F32, I32, F16, BF16 or I16, dense rows. dst: the same type, each dimension a multiple of src0's, dense rows. Bits are
copied, NaN and all. Empty: nothing is computed.

Source: ggml_repeat in ggml.c, ggml_compute_forward_repeat in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.arithmetic import repeated
from ggml_rpc_ref.ops.shared.layout import can_repeat, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import EXACT

TYPES = ("F32", "I32", "F16", "BF16", "I16")


def shape(node: Node) -> None:
    """Refuse another type than the source's, dimensions that are not multiples of its, gaps within rows."""
    src0, dst = node.source(0), node.dst
    node.require(dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", dst.dtype.name)
    node.require(can_repeat(src0, dst), f"multiples of src0's ne {src0.ne}", dst.ne)
    require_dense_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Copy the bits, part by part."""
    source, target = node.source(0).array, node.dst.array
    for block in element_blocks(node.dst.ne):
        target[block] = repeated(source, target.shape, block)


OP = Op(
    name="REPEAT",
    sources=(Source("x", TYPES, "each dimension divides the result's"),),
    types=TYPES,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
