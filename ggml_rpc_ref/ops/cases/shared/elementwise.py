"""What the cases of SQR, SQRT, LOG, SIN and COS share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.elementwise import UNARY_TYPES


def unary_cases(fill: str, rows_since: str = "") -> Iterator[Case]:
    """Yield an op's cases.

    Args:
        fill: of most sources.
        rows_since: the change that allowed unevenly spaced rows; "": they always were.
    """
    for case in _cases(fill):
        uneven = case.id in ("permuted", "dst-permuted", "gaps")
        yield from since(rows_since, [case]) if uneven else [case]


def _cases(fill: str) -> Iterator[Case]:
    """Yield row lengths around vector widths, every pair of types, strides on either side, in place, special values."""
    for n in (1, 7, 64, 129):
        yield Case(f"n{n}", Operand("F32", (n, 2)), (Operand("F32", (n, 2), fill=fill),))
    for source, result in sorted(UNARY_TYPES - {("F32", "F32")}):
        yield Case(f"{source}-{result}".lower(), Operand(result, (33, 3)), (Operand(source, (33, 3), fill=fill),))
    for dtype in ("F32", "F16"):
        yield Case(f"special-{dtype}".lower(), Operand(dtype, (16, 8)), (Operand(dtype, (16, 8), fill="special"),))
    plain, permuted = Operand("F32", (9, 4, 3, 2), fill=fill), (4, 108, 36, 432)
    yield Case("permuted", Operand("F32", plain.ne), (Operand("F32", plain.ne, permuted, fill),))
    yield Case("dst-permuted", Operand("F32", plain.ne, permuted), (plain,))
    yield Case("gaps", Operand("F32", plain.ne, (4, 48, 192, 640)), (Operand("F32", plain.ne, (4, 40, 200, 600), fill),))
    yield Case("in-place", Operand("F32", plain.ne, alias="src0"), (plain,))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))
