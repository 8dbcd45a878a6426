"""Inputs worth trying on CONCAT."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.op import PLAIN


def cases() -> Iterator[Case]:
    """Each dimension, every type, strides on all sides, one part empty, special values."""
    for dim in range(4):
        a, b = [4, 3, 2, 2], [4, 3, 2, 2]
        b[dim] = 5
        joined = [*a]
        joined[dim] += 5
        yield Case(f"dim{dim}", Operand("F32", tuple(joined)), (Operand("F32", tuple(a)), Operand("F32", tuple(b))), {"dim": dim})
    for dtype in PLAIN[1:]:
        src = (Operand(dtype, (4, 3), fill="normal:100"), Operand(dtype, (4, 5), fill="normal:100"))
        yield Case(dtype.lower(), Operand(dtype, (4, 8)), src, {"dim": 1})
    permuted, gaps = Operand("F32", (4, 3, 2), (4, 32, 16, 96)), Operand("F32", (4, 3, 5), (8, 40, 160, 800))
    strided = Case("strided", Operand("F32", (4, 3, 7), (12, 60, 200, 1400)), (permuted, gaps), {"dim": 2})
    turned = (Operand("F16", (3, 3), (6, 2, 18, 18)), Operand("F16", (4, 3), (6, 2, 24, 24)))
    yield from until("CONCAT.rows", (strided, Case("transposed", Operand("F16", (7, 3)), turned, {"dim": 0})))
    yield Case("first-empty", Operand("F32", (4, 3)), (Operand("F32", (4, 0)), Operand("F32", (4, 3))), {"dim": 1})
    yield Case("second-empty", Operand("F32", (4, 3)), (Operand("F32", (4, 3)), Operand("F32", (0, 3))), {"dim": 0})
    special = Operand("F32", (16, 4), fill="special")
    yield Case("special", Operand("F32", (16, 8)), (special, special), {"dim": 1})
    yield from since("CONCAT.blocks", _later())


def _later() -> Iterator[Case]:
    for dtype in ("Q4_0", "Q8_0", "Q4_K", "IQ2_XS", "Q2_0"):
        for dim in range(3):
            a, b = [512, 3, 1], [512, 3, 1]
            b[dim] = 256 if dim == 0 else 2
            joined = [m + n if place == dim else m for place, (m, n) in enumerate(zip(a, b, strict=True))]
            src = (Operand(dtype, tuple(a), fill="bits"), Operand(dtype, tuple(b), fill="bits"))
            yield Case(f"{dtype}-dim{dim}".lower(), Operand(dtype, tuple(joined), fill="bits"), src, {"dim": dim})
    src = (Operand("Q8_0", (64, 3), fill="bits"), Operand("Q8_0", (32, 3), fill="bits"))
    yield Case("blocks-into-gaps", Operand("Q8_0", (96, 3), (34, 170, 510, 510)), src, {"dim": 0})
