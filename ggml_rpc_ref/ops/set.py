"""SET: src1 written over a region of src0.

    dst = src0; then region(dst)[i] = src1[i]

src0, dst: both F32 or both I32, the same ne, contiguous. src1: F32 or I32, whose bits are copied as they are; dense rows. The
region begins at byte `offset` of dst, has src1's ne and the strides (4, nb1, nb2, nb3), lies inside dst, and no two of its
elements share bytes; the four numbers are multiples of 4, none negative, but for strides along dimensions of length 1, which are
not looked at. With inplace not 0, src0 is not copied first: a client then makes dst a view of it. Bits are copied, NaN and all.
src1 empty: a copy. dst empty: nothing is computed.

Source: ggml_compute_forward_set in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.regions import PARAMS, region, require_region
from ggml_rpc_ref.ops.tolerance import EXACT

shape = require_region


def oracle(node: Node) -> None:
    """Take src1 aside, so that it does not matter which memories are the same."""
    values = node.source(1).array.copy().view(node.dst.array.dtype)
    if not node.i32("inplace"):
        node.dst.array[...] = node.source(0).array
    region(node.dst, node).array[...] = values


OP = Op(
    name="SET",
    sources=(Source("a", ("F32", "I32"), "contiguous"), Source("b", ("F32", "I32"), "the region's ne")),
    types=("F32", "I32"),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0, 1),
)
