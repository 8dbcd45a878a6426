"""ROLL: shift all elements along each dimension; those that leave at one end re-enter at the other.

    dst[i0, i1, i2, i3] = src0[(i0 - shift0) mod ne0, (i1 - shift1) mod ne1, (i2 - shift2) mod ne2, (i3 - shift3) mod ne3]

src0 and dst: F32 of the same ne, dense rows, rows at distances that are multiples of 4 bytes. Each shift's amount is below its
dimension's length, so no dimension is 0. NaN, infinities and -0 are moved as they are.

Source: ggml_roll in ggml.c; ggml_compute_forward_roll_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse other dimensions, shifts by a whole dimension or more, rows with gaps or off the grid of floats."""
    src0, dst, shifts = node.source(0), node.dst, node.i32s("shift")
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)
    node.require(all(abs(s) < n for s, n in zip(shifts, src0.ne, strict=True)), f"shifts by less than {src0.ne}", shifts)
    require_dense_rows(node, src0)
    require_contiguous_rows(node, dst)
    for tensor in (src0, dst):
        aligned = all(n == 1 or nb % 4 == 0 for n, nb in zip(tensor.ne, tensor.nb, strict=True))
        node.require(aligned, "strides that are multiples of 4", tensor.nb, at=tensor)


def oracle(node: Node) -> None:
    """Roll the four axes."""
    # numpy's axes run in the reverse order of ne
    node.dst.array[...] = np.roll(node.source(0).array, node.i32s("shift")[::-1], (0, 1, 2, 3))


OP = Op(
    name="ROLL",
    sources=(Source("x", ("F32",), "ne = any without 0"),),
    types=("F32",),
    params=(Param("shift", "i32", 0, "elements to move by, dimension by dimension; negative moves towards index 0", count=4),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
