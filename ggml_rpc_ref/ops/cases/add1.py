"""Inputs worth trying on ADD1."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.add1 import BLOCK_TYPES
from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, every type, in place, gaps, special values."""
    number = Operand("F32", (1,), fill="values:0.75")
    for n in (1, 7, 32, 65):
        yield Case(f"n{n}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)), number))
    for dtype in ("F16", "BF16"):
        for other in ("F32", dtype):
            src = (Operand(dtype, (33, 2)), Operand(other, (1,), fill="values:0.3"))
            yield Case(f"{dtype}-{other}".lower(), Operand(dtype, (33, 2)), src)
    for dtype in BLOCK_TYPES:
        yield Case(dtype.lower(), Operand(dtype, (256, 2)), (Operand(dtype, (256, 2)), number))
    special = Operand("F32", (16, 6), fill="special")
    for name, value in {"special": "0.5", "special-inf": "inf", "special-nan": "nan"}.items():
        yield Case(name, Operand("F32", special.ne), (special, Operand("F32", (1,), fill=f"values:{value}")))
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x, number))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), (Operand("F32", x.ne, (4, 48, 192, 576)), number))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)), number))
