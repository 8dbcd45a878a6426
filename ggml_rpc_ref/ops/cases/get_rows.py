"""Inputs worth trying on GET_ROWS."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS


def cases() -> Iterator[Case]:
    """Every type; batches; repeated and ordered indices; strided indices; gaps between rows; nothing."""
    for dtype in (*FLOATS, "I32", *READABLE_BLOCKS):
        fill = "normal" if dtype not in READABLE_BLOCKS or dtype in WRITABLE_BLOCKS else "blocks"
        table = Operand(dtype, (256, 7), fill="normal:1000" if dtype == "I32" else fill)
        yield Case(
            dtype.lower(), Operand("I32" if dtype == "I32" else "F32", (256, 3)), (table, Operand("I32", (3,), fill="index:7"))
        )
    x = Operand("F32", (5, 7, 3, 2))
    yield Case("batches", Operand("F32", (5, 4, 3, 2)), (x, Operand("I32", (4, 3, 2), fill="index:7")))
    yield Case("indices-strided", Operand("F32", (5, 4, 3, 2)), (x, Operand("I32", (4, 3, 2), nb=(12, 4, 64, 128), fill="index:7")))
    gaps = Operand("F32", (5, 7, 3), nb=(4, 32, 256, 768))
    yield Case("gaps", Operand("F32", (5, 4, 3), nb=(4, 24, 128, 384)), (gaps, Operand("I32", (4, 3), fill="index:7")))
    yield Case(
        "permuted-table",
        Operand("F32", (5, 4, 3)),
        (Operand("F32", (5, 7, 3), nb=(4, 60, 20, 420)), Operand("I32", (4, 3), fill="index:7")),
    )
    yield Case("one-column", Operand("F32", (1, 9)), (Operand("F16", (1, 5)), Operand("I32", (9,), fill="index:5")))
    yield Case("all-the-same", Operand("F32", (8, 6)), (Operand("BF16", (8, 3)), Operand("I32", (6,), fill="values:2")))
    yield Case("special", Operand("F32", (16, 4)), (Operand("F32", (16, 6), fill="special"), Operand("I32", (4,), fill="index:6")))
    yield Case("no-rows", Operand("F32", (8, 0)), (Operand("F32", (8, 3)), Operand("I32", (0,), fill="index:3")))
