"""Inputs worth trying on CROSS_ENTROPY_LOSS."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, one row and many, padded rows, extreme logits, nothing."""
    for n in (1, 7, 16, 33, 1025):
        yield loss(f"n{n}", Operand("F32", (n, 3, 2, 2)), Operand("F32", (n, 3, 2, 2), fill="uniform:0:1"))
    yield loss("one-hot", Operand("F32", (3, 7)), Operand("F32", (3, 7), fill="values:0,1,0"))
    yield loss(
        "rows-padded", Operand("F32", (5, 4), nb=(4, 32, 128, 128)), Operand("F32", (5, 4), nb=(4, 24, 96, 96), fill="uniform:0:1")
    )
    yield loss("large", Operand("F32", (33, 4), fill="normal:1000"), Operand("F32", (33, 4), fill="uniform:0:1"))
    yield loss("minus-inf", Operand("F32", (3, 2), fill="values:1,-inf,2,0.5"), Operand("F32", (3, 2), fill="values:1,0,0"))
    yield loss("nan", Operand("F32", (3, 2), fill="values:1,nan,2,0.5"), Operand("F32", (3, 2), fill="values:1"))
    yield loss("empty-rows", Operand("F32", (0, 3)), Operand("F32", (0, 3)))
    yield loss("no-rows", Operand("F32", (3, 0)), Operand("F32", (3, 0)))


def loss(id: str, logits: Operand, wanted: Operand) -> Case:
    """Return a case."""
    return Case(id, Operand("F32", (1,)), (logits, wanted))
