"""Inputs worth trying on ARGMAX."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, ties, infinities, NaN in every place, gaps, nothing."""
    for n in (1, 7, 33, 1025):
        yield Case(f"n{n}", Operand("I32", (5,)), (Operand("F32", (n, 5)),))
    rows = {
        "ties": "1,3,2,3,0", "all-equal": "2", "zeros": "-0,0,-0,-0,0", "minus-inf": "-inf", "inf": "1,inf,2,inf,3",
        "nan-first": "nan,1,2,0,-1", "nan-middle": "5,3,nan,1,2", "nan-last": "1,5,3,2,nan", "nan-all": "nan",
        "nan-two": "9,nan,3,nan,1", "nan-ends": "nan,4,2,nan,nan",
    }  # fmt: skip
    for name, values in rows.items():
        yield Case(name, Operand("I32", (2,)), (Operand("F32", (5, 2), fill=f"values:{values}"),))
    yield Case("gaps", Operand("I32", (4,)), (Operand("F32", (5, 4), nb=(4, 32, 128, 128)),))
    yield Case("dst-gaps", Operand("I32", (4,), nb=(8, 32, 32, 32)), (Operand("F32", (5, 4)),))
    yield Case("empty-rows", Operand("I32", (3,)), (Operand("F32", (0, 3)),))
    yield Case("no-rows", Operand("I32", (0,)), (Operand("F32", (3, 0)),))
