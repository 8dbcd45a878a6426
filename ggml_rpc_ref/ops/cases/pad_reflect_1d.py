"""Inputs worth trying on PAD_REFLECT_1D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.tensor import Quad


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
