"""What the cases of SUM_ROWS and MEAN share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def row_sum_cases() -> Iterator[Case]:
    """Row lengths around vector widths, views on both sides, special values, empty rows, nothing."""
    for n in (1, 7, 16, 33, 1025):
        yield Case(f"n{n}", Operand("F32", (1, 3, 2, 2)), (Operand("F32", (n, 3, 2, 2)),))
    permuted = Operand("F32", (9, 4, 3, 2), nb=(4, 108, 36, 432))
    yield Case("permuted", Operand("F32", (1, 4, 3, 2)), (permuted,))
    yield Case("dst-gaps", Operand("F32", (1, 4, 3, 2), nb=(4, 16, 80, 400)), (Operand("F32", (9, 4, 3, 2)),))
    yield Case("cancels", Operand("F32", (1, 3)), (Operand("F32", (3, 3), fill="values:1e8,1,-1e8"),))
    yield Case("special", Operand("F32", (1, 24)), (Operand("F32", (8, 24), fill="special"),))
    yield Case("empty-rows", Operand("F32", (1, 3)), (Operand("F32", (0, 3)),))
    yield Case("no-rows", Operand("F32", (1, 0)), (Operand("F32", (3, 0)),))
