"""Inputs worth trying on CUMSUM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, views, in place, special values, nothing."""
    for n in (1, 7, 16, 33, 1025):
        yield Case(f"n{n}", Operand("F32", (n, 3, 2, 2)), (Operand("F32", (n, 3, 2, 2)),))
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,))
    yield Case("permuted", Operand("F32", x.ne, nb=(4, 48, 192, 640)), (Operand("F32", x.ne, nb=(4, 108, 36, 432)),))
    yield Case("special", Operand("F32", (16, 24)), (Operand("F32", (16, 24), fill="special"),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))
