"""Inputs worth trying on ROLL."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.tensor import Quad


def _case(name: str, x: Quad, shift: Quad, *, nbs: tuple[Quad | None, Quad | None] = (None, None), fill: str = "normal") -> Case:
    """Return a case; nbs are the strides of source and result."""
    return Case(name, Operand("F32", x, nbs[1]), (Operand("F32", x, nbs[0], fill),), {"shift": shift})


def cases() -> Iterator[Case]:
    """Every dimension, both directions, the greatest shifts, rows apart, special values."""
    x = (7, 5, 4, 3)
    for dim in range(4):
        for amount in (1, -1, x[dim] - 1, 1 - x[dim]):
            shift = (amount if dim == 0 else 0, amount if dim == 1 else 0, amount if dim == 2 else 0, amount if dim == 3 else 0)
            yield _case(f"dim-{dim}-by-{amount}", x, shift)
    yield _case("all", x, (3, -2, 1, -1))
    yield _case("none", x, (0, 0, 0, 0))
    yield _case("one-element", (1, 1, 1, 1), (0, 0, 0, 0))
    yield _case("long", (1025, 2, 1, 1), (-513, 1, 0, 0))
    yield _case("special", (33, 4, 1, 1), (8, 3, 0, 0), fill="special")
    yield _case("rows-apart", (5, 3, 2, 2), (2, 1, -1, 1), nbs=((4, 24, 80, 200), (4, 40, 128, 300)))
    yield _case("rows-permuted", (5, 3, 2, 2), (2, 1, -1, 1), nbs=((4, 80, 40, 20), (4, 20, 120, 60)))
