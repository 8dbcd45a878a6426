"""Inputs worth trying on DUP."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Some types, gaps, in place, special values."""
    for dtype in ("F32", "F16", "BF16", "I32", "I64", "Q4_0", "Q6_K"):
        yield Case(dtype.lower(), Operand(dtype, (256, 2)), (Operand(dtype, (256, 2)),))
    yield Case("special", Operand("F32", (16, 8)), (Operand("F32", (16, 8), fill="special"),))
    gaps = Operand("F32", (6, 4, 3, 2), nb=(4, 32, 160, 512))
    yield Case("gaps", Operand("F32", gaps.ne), (gaps,))
    yield Case("in-place", Operand("F32", (7, 3), alias="src0"), (Operand("F32", (7, 3)),))
    yield Case("f32-to-q8_0", Operand("Q8_0", (64, 3)), (Operand("F32", (64, 3)),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))
