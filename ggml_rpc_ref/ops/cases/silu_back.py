"""Inputs worth trying on SILU_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Both types, row lengths around vector widths, gaps, special values."""
    for dtype in ("F32", "F16"):
        for n in (1, 7, 65):
            src = (Operand(dtype, (n, 3)), Operand(dtype, (n, 3), fill="normal:4"))
            yield Case(f"n{n}-{dtype}".lower(), Operand(dtype, (n, 3)), src)
    x = Operand("F32", (9, 4, 3, 2))
    gaps = (Operand("F32", x.ne, (4, 48, 192, 576)), Operand("F32", x.ne, (4, 40, 160, 480)))
    yield Case("gaps", Operand("F32", x.ne, (4, 44, 176, 528)), gaps)
    special = Operand("F32", (16, 8), fill="special")
    yield Case("special", Operand("F32", special.ne), (Operand("F32", special.ne), special))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), Operand("F32", (0, 3))))
