"""Inputs worth trying on SUM."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import FLOATS


def cases() -> Iterator[Case]:
    """Every type; sizes around vector widths; views; overflow; NaN and infinities; nothing."""
    for dtype in FLOATS:
        for n in (1, 7, 33):
            yield Case(f"{dtype.lower()}-n{n}", Operand(dtype, (1,)), (Operand(dtype, (n, 3, 2, 2)),))
        yield Case(f"{dtype.lower()}-nan", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:1,nan,2"),))
        yield Case(f"{dtype.lower()}-inf", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:1,inf,2"),))
        yield Case(f"{dtype.lower()}-inf-inf", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:-inf,inf,2"),))
        yield Case(f"{dtype.lower()}-empty", Operand(dtype, (1,)), (Operand(dtype, (3, 0)),))
        size = 4 if dtype == "F32" else 2
        permuted = Operand(dtype, (9, 4, 3), nb=(size, 27 * size, 9 * size, 108 * size))
        yield Case(f"{dtype.lower()}-permuted", Operand(dtype, (1,)), (permuted,))
    yield Case("f16-overflow", Operand("F16", (1,)), (Operand("F16", (9,), fill="values:60000"),))
    yield Case("f32-cancels", Operand("F32", (1,)), (Operand("F32", (3,), fill="values:1e8,1,-1e8"),))
