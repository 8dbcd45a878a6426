"""PAD_REFLECT_1D: put a border before and after each row that mirrors it; the outermost element is the mirror, not repeated.

    dst[i, r] = src0[|i - p0|, r] up to the row's last element, from there on src0[2*(ne0 - 1) - (i - p0), r]

src0: F32, ne = (ne0, r1, r2, r3), elements of a row neighbours, rows anywhere. dst: F32, ne = (p0 + ne0 + p1, r1, r2, r3),
likewise. p0 and p1 from 0 to ne0 - 1. NaN, infinities and -0 are moved as they are.

Source: ggml_pad_reflect_1d in ggml.c; ggml_compute_forward_pad_reflect_1d in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse a border as long as the row, a result of other dimensions, rows with gaps."""
    src0, dst, p0, p1 = node.source(0), node.dst, node.i32("p0"), node.i32("p1")
    node.require(0 <= p0 < src0.ne[0] and 0 <= p1 < src0.ne[0], f"p0 and p1 from 0 to {src0.ne[0] - 1}", (p0, p1))
    ne = (p0 + src0.ne[0] + p1, *src0.ne[1:])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(src0.nb[0] == 4 and dst.nb[0] == 4, "elements of a row to be neighbours", (src0.nb, dst.nb))


def oracle(node: Node) -> None:
    """Gather each row by mirrored indices."""
    last, index = node.source(0).ne[0] - 1, np.abs(np.arange(node.dst.ne[0]) - node.i32("p0"))
    node.dst.array[...] = node.source(0).array[..., np.where(index <= last, index, 2 * last - index)]


def _case(
    name: str, x: Quad, p0: int, p1: int, *, nbs: tuple[Quad | None, Quad | None] = (None, None), fill: str = "normal"
) -> Case:
    """Return a case; nbs are the strides of source and result."""
    dst = Operand("F32", (p0 + x[0] + p1, *x[1:]), nbs[1])
    return Case(name, dst, (Operand("F32", x, nbs[0], fill),), {"p0": p0, "p1": p1})


def cases() -> Iterator[Case]:
    """Borders of no, some and the greatest length, rows apart, special values."""
    yield _case("plain", (11, 3, 2, 2), 4, 3)
    yield _case("left", (7, 3, 1, 1), 5, 0)
    yield _case("right", (7, 3, 1, 1), 0, 5)
    yield _case("none", (7, 3, 1, 1), 0, 0)
    yield _case("greatest", (5, 2, 3, 1), 4, 4)
    yield _case("one-element", (1, 3, 1, 1), 0, 0)
    yield _case("long", (1025, 2, 1, 1), 10, 9)
    yield _case("special", (33, 4, 1, 1), 8, 8, fill="special")
    yield _case("rows-apart", (5, 3, 2, 2), 2, 1, nbs=((4, 24, 80, 200), (4, 40, 128, 300)))
    yield _case("rows-permuted", (5, 3, 2, 2), 2, 1, nbs=((4, 80, 40, 20), (4, 32, 192, 96)))


OP = Op(
    name="PAD_REFLECT_1D",
    sources=(Source("x", ("F32",), "ne = (ne0, r1, r2, r3)"),),
    types=("F32",),
    params=(
        Param("p0", "i32", 0, "elements before, below ne0"),
        Param("p1", "i32", 1, "elements after, below ne0"),
    ),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
