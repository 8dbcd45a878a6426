"""Inputs worth trying on RMS_NORM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, broadcast-free shapes in all dimensions, gaps between rows, in place, special values."""
    for n in (1, 7, 64, 1025):
        x = Operand("F32", (n, 3, 2, 2) if n < 1000 else (n, 3))
        yield Case(f"n{n}", Operand("F32", x.ne), (x,), {"eps": 1e-6})
    x = Operand("F32", (640, 5))
    yield Case("eps-zero", Operand("F32", x.ne), (x,), {"eps": 0.0})
    yield Case("eps-large", Operand("F32", x.ne), (x,), {"eps": 10.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"eps": 1e-6})
    gaps = Operand("F32", (16, 4, 3, 2), nb=(4, 96, 480, 2048))
    yield Case("gaps", Operand("F32", gaps.ne), (gaps,), {"eps": 1e-5})
    large = Operand("F32", (16, 2), fill="values:2e19,1,-1,0.5,-3,7,1e10,0")
    yield Case("squares-overflow", Operand("F32", large.ne), (large,), {"eps": 1e-6})
    special = Operand("F32", (8, 64), fill="special")
    yield Case("special", Operand("F32", special.ne), (special,), {"eps": 1e-5})
