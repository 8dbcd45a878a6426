"""Inputs worth trying on ADD."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.arithmetic import arithmetic_cases
from ggml_rpc_ref.ops.op import READABLE_BLOCKS, WRITABLE_BLOCKS


def cases() -> Iterator[Case]:
    """The cases of every arithmetic op; every block type as src0, and some as another result than its own."""
    yield from arithmetic_cases("ADD")
    for dtype in READABLE_BLOCKS:
        result = dtype if dtype in WRITABLE_BLOCKS else "F32"
        fill = "normal" if dtype in WRITABLE_BLOCKS else "blocks"
        yield Case(dtype.lower(), Operand(result, (256, 2)), (Operand(dtype, (256, 2), fill=fill), Operand("F32", (256, 2))))
    for dtype, result in (("Q4_0", "F32"), ("Q4_K", "F16"), ("Q8_0", "BF16"), ("Q6_K", "Q8_0")):
        src = (Operand(dtype, (256, 2)), Operand("F32", (256, 2)))
        yield Case(f"{dtype}-to-{result}".lower(), Operand(result, (256, 2)), src)
    for dtype in ("Q8_0", "Q4_K"):
        src = (Operand(dtype, (256, 2), fill="normal:10"), Operand("F32", (256, 2), fill="normal:10"))
        yield from since("ADD.i32", [Case(f"{dtype}-to-i32".lower(), Operand("I32", (256, 2)), src)])
    rows = Operand("Q8_0", (64, 3, 2), nb=(34, 102, 340, 680))
    yield Case("q8_0-gaps-in-place", Operand("Q8_0", rows.ne, rows.nb, alias="src0"), (rows, Operand("F32", rows.ne)))
