"""ADD: the sum of two tensors, element by element, with the second one broadcast.

    dst[i] = src0[i] + src1[i mod ne of src1]     in float32, rounded or quantised once to dst's type

src0: ne, dense rows. src1: each dimension divides src0's, any strides. dst: src0's ne, dense rows; may be the memory of either
source. Types: see `arithmetic.TYPES`; besides, src0 of a block type with src1 F32 of the same dimensions and dst of any type
that upstream's CPU can write, or I32 (ggml_add_cast), towards zero as in CPY. IEEE rules for NaN and infinities. Empty: nothing
is computed.

Source: apply_binary_op in ggml-cpu/binary-ops.cpp, ggml_compute_forward_add_q_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS, Node, Op, Source, before
from ggml_rpc_ref.ops.shared.arithmetic import combine, require_arithmetic, require_dense_second, with_dense_second
from ggml_rpc_ref.ops.shared.layout import require_dense_rows, require_ne
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse what `require_arithmetic` refuses; for a block type other dimensions, and strides that decrease in dst."""
    if not node.source(0).dtype.is_quantised:
        require_arithmetic(node)
        return
    src0, src1, dst = node.source(0), node.source(1), node.dst
    node.require(src1.dtype.name == "F32", "src1 F32 with a block type", src1.dtype.name, at=src1)
    require_ne(node, src0.ne, src1, dst)
    node.require(sorted(dst.nb) == list(dst.nb), "nb that does not decrease", dst.nb)
    require_dense_rows(node, src0, src1, dst)


def shape_of_dense_second(node: Node) -> None:
    """Refuse what `shape` does, and a src1 that repeats and whose rows have gaps."""
    shape(node)
    if not node.source(0).dtype.is_quantised:
        require_dense_second(node)


def oracle(node: Node) -> None:
    """Compute the sum."""
    combine(node, np.add)


OP = Op(
    name="ADD",
    sources=(
        Source("a", FLOATS + READABLE_BLOCKS, "ne of the result"),
        Source("b", FLOATS, "each dimension divides a's; a's ne where a is of a block type"),
    ),
    types=(*FLOATS, *WRITABLE_BLOCKS, "I32"),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0, 1),
    earlier=(*with_dense_second("ADD", shape_of_dense_second), before("ADD.i32", types=FLOATS + WRITABLE_BLOCKS)),
)
