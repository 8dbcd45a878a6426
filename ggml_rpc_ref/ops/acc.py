"""ACC: src1 added to a region of src0.

    dst = src0; then region(dst)[i] = region(src0)[i] + src1[i]

src0, dst: F32, the same ne, contiguous. src1: F32, dense rows. The region begins at byte `offset` of dst, has src1's ne and the
strides (4, nb1, nb2, nb3), lies inside dst, and no two of its elements share bytes; the four numbers are multiples of 4, none
negative, but for strides along dimensions of length 1, which are not looked at. With inplace not 0, src0 is not copied first: a
client then makes dst a view of src0. IEEE rules. src1 empty: a copy. dst empty: nothing is computed.

Source: ggml_compute_forward_acc_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.regions import PARAMS, region, require_region
from ggml_rpc_ref.ops.tolerance import EXACT

shape = require_region


def oracle(node: Node) -> None:
    """Add before copying, since src0, src1 and dst may share memory."""
    with np.errstate(all="ignore"):
        total = region(node.source(0), node).array + node.source(1).array
    if not node.i32("inplace"):
        node.dst.array[...] = node.source(0).array
    region(node.dst, node).array[...] = total


OP = Op(
    name="ACC",
    sources=(Source("a", ("F32",), "contiguous"), Source("b", ("F32",), "the region's ne")),
    types=("F32",),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0, 1),
)
