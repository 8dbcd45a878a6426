"""COUNT_EQUAL: the number of places at which two tensors are equal.

    dst = number of (i3, i2, j, i) for which src0[i3][i2][j][i] == src1[i3][i2][j][i]

src0, src1: I32 of the same ne, any strides. dst: I64, one element. No elements: 0. Upstream finds the right rows only where ne2
= ne3 = 1: with more dimensions it computes wrong row offsets and counts other rows, some of them outside the tensors (read in
the source; recorded cases are matrices).

Source: ggml_compute_forward_count_equal_i32 in ggml-cpu/ops.cpp, ggml_count_equal in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse two sources of different dimensions, a result that is not one number."""
    a, b = node.source(0), node.source(1)
    node.require(b.ne == a.ne, f"src1.ne {a.ne}", b.ne, at=b)
    node.require(node.dst.ne == (1, 1, 1, 1), "one element", node.dst.ne)


def oracle(node: Node) -> None:
    """Count."""
    a, b = node.source(0).array, node.source(1).array
    node.dst.array[...] = sum(np.count_nonzero(a[block] == b[block]) for block in element_blocks(node.source(0).ne))


OP = Op(
    name="COUNT_EQUAL",
    sources=(Source("a", ("I32",), "any ne"), Source("b", ("I32",), "a's ne")),
    types=("I64",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
