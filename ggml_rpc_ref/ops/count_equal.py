"""COUNT_EQUAL: how many elements two tensors share.

    dst = number of (i3, i2, j, i) for which src0[i3][i2][j][i] == src1[i3][i2][j][i]

src0, src1: I32 of one ne, any strides. dst: I64, one element. No elements: 0.
Upstream finds the right rows only where ne2 = ne3 = 1: with more dimensions it takes wrong strides to pieces of the row
number, and counts other rows, some of them outside of the tensors (seen in the source; recorded cases are matrices).

Source: ggml_compute_forward_count_equal_i32 in ggml-cpu/ops.cpp, ggml_count_equal in ggml.c.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse two sources of different dimensions, a result that is not one number."""
    a, b = node.source(0), node.source(1)
    node.require(b.ne == a.ne, f"src1.ne {a.ne}", b.ne)
    node.require(node.dst.ne == (1, 1, 1, 1), "one element", node.dst.ne)


def oracle(node: Node) -> None:
    """Count."""
    a, b = node.source(0).array, node.source(1).array
    node.dst.array[...] = sum(np.count_nonzero(a[block] == b[block]) for block in row_blocks(node.source(0).ne))


def cases() -> Iterator[Case]:
    """Sizes around vector widths, all and none equal, views, nothing."""
    few = "index:3"
    for n in (1, 7, 33, 1025):
        yield pair(f"n{n}", Operand("I32", (n, 3), fill=few), Operand("I32", (n, 3), fill=few))
    yield pair("all", Operand("I32", (33, 3), fill="arange"), Operand("I32", (33, 3), fill="arange"))
    yield pair("none", Operand("I32", (33, 3), fill="zeros"), Operand("I32", (33, 3), fill="values:1"))
    yield pair(
        "negative",
        Operand("I32", (5,), fill="values:-1,2,-3,4,-2147483648"),
        Operand("I32", (5,), fill="values:-1,2,3,4,-2147483648"),
    )
    yield pair("transposed", Operand("I32", (5, 4), nb=(16, 4, 80, 80), fill=few), Operand("I32", (5, 4), fill=few))
    yield pair(
        "gaps", Operand("I32", (5, 4), nb=(8, 64, 256, 256), fill=few), Operand("I32", (5, 4), nb=(4, 32, 128, 128), fill=few)
    )
    yield pair("empty", Operand("I32", (0, 3), fill=few), Operand("I32", (0, 3), fill=few))


def pair(id: str, a: Operand, b: Operand) -> Case:
    """Return a case."""
    return Case(id, Operand("I64", (1,)), (a, b))


OP = Op(
    name="COUNT_EQUAL",
    sources=(Source("a", ("I32",), "any ne"), Source("b", ("I32",), "a's ne")),
    types=("I64",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
