"""Inputs worth trying on ADD_REL_POS."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def _case(name: str, n: int, queries: tuple[int, int], heads: int, inplace: int, batch: int = 1, fill: str = "normal") -> Case:
    """Return a case; in place, the result is the scores' memory."""
    scores = Operand("F32", (n * n, queries[0] * queries[1], heads, batch), fill=fill)
    terms = Operand("F32", (n, *queries, heads), fill=fill)
    dst = Operand("F32", scores.ne, alias="src0" if inplace else "")
    return Case(name, dst, (scores, terms, terms), {"inplace": inplace})


def cases() -> Iterator[Case]:
    """Sizes, heads, in place or not, further matrices, special values."""
    for inplace in (0, 1):
        word = "in-place" if inplace else "apart"
        yield _case(f"{word}-plain", 4, (4, 4), 3, inplace)
        yield _case(f"{word}-unequal-queries", 3, (5, 2), 2, inplace)
        yield _case(f"{word}-one", 1, (1, 1), 1, inplace)
        yield _case(f"{word}-further-matrices", 3, (2, 2), 2, inplace, 3)
        yield _case(f"{word}-special", 3, (3, 3), 2, inplace, fill="special")
