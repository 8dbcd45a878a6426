"""Inputs worth trying on DIAG."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Sizes around vector widths, batches, gaps, special values, nothing."""
    for n in (1, 2, 7, 33):
        yield Case(f"n{n}", Operand("F32", (n, n, 3, 2)), (Operand("F32", (n, 1, 3, 2)),))
    yield Case("special", Operand("F32", (17, 17)), (Operand("F32", (17,), fill="special"),))
    row = Operand("F32", (5, 1, 3), nb=(4, 100, 28, 200))
    yield Case("gaps", Operand("F32", (5, 5, 3), nb=(4, 32, 192, 576)), (row,))
    yield Case("empty", Operand("F32", (0, 0, 2)), (Operand("F32", (0, 1, 2)),))
