"""Inputs worth trying on SOLVE_TRI."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Sizes around vector widths, batches, gaps between matrices, a zero on the diagonal, rubbish above it, nothing."""
    for n, k in ((1, 1), (2, 3), (7, 1), (11, 5), (16, 17), (31, 4)):
        yield system(f"n{n}-k{k}", Operand("F32", (n, n, 2, 3), fill=_matrix(n)), Operand("F32", (k, n, 2, 3)))
    a, b = Operand("F32", (5, 5, 2, 2), fill=_matrix(5)), Operand("F32", (3, 5, 2, 2))
    yield system("in-place", a, b, in_place=True)
    gaps = Operand("F32", (3, 5, 2, 2), nb=(4, 12, 64, 192))
    yield system("gaps", Operand("F32", (5, 5, 2, 2), nb=(4, 20, 112, 300), fill=_matrix(5)), gaps)
    one = Operand("F32", (1, 1, 2), nb=(12, 20, 4, 8), fill="values:2,3")
    yield system("one-row-any-stride", one, Operand("F32", (3, 1, 2), nb=(4, 20, 12, 24)))
    yield system("one-column-any-stride", Operand("F32", (4, 4), fill=_matrix(4)), Operand("F32", (1, 4), nb=(20, 4, 16, 16)))
    yield system("zero", Operand("F32", (3, 3), fill="values:2,0,0,1,0,0,1,1,2"), Operand("F32", (2, 3)))
    above = "values:2,nan,inf,nan,1,4,-inf,nan,1,-1,0.5,nan,1,2,3,4"
    yield system("above", Operand("F32", (4, 4), fill=above), Operand("F32", (2, 4)))
    yield system("nan", Operand("F32", (3, 3), fill="values:2,0,0,nan,1,0,1,0,2"), Operand("F32", (2, 3)))
    yield system("empty", Operand("F32", (3, 3)), Operand("F32", (0, 3)))


def _matrix(n: int) -> str:
    """Return a fill of period n + 1, so that the diagonal is one number, larger than the rest: solutions stay small."""
    return "values:" + ",".join(["2.5", *(str((7 * i % 11 - 5) / 8) for i in range(1, n + 1))])


def system(id: str, a: Operand, b: Operand, in_place: bool = False) -> Case:
    """Return a case whose destination follows from b."""
    return Case(id, Operand("F32", b.ne, alias="src1" if in_place else ""), (a, b))
