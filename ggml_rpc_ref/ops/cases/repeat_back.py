"""Inputs worth trying on REPEAT_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Each dimension and all of them; strides on both sides; special values."""
    small, large = (
        (3, 2, 2, 1),
        {"dim0": (9, 2, 2), "dim1": (3, 8, 2), "dim2": (3, 2, 6), "dim3": (3, 2, 2, 3), "all": (6, 4, 4, 2)},
    )
    for name, ne in large.items():
        yield Case(name, Operand("F32", small), (Operand("F32", ne),))
    yield Case("to-scalar", Operand("F32", (1,)), (Operand("F32", (17, 5)),))
    yield Case("row", Operand("F32", (33,)), (Operand("F32", (33, 7)),))
    yield Case("same", Operand("F32", (5, 3)), (Operand("F32", (5, 3)),))
    yield Case("permuted", Operand("F32", (3, 2, 2)), (Operand("F32", (6, 4, 6), (4, 144, 24, 576)),))
    yield Case("gaps", Operand("F32", (3, 2), (4, 20, 40, 40)), (Operand("F32", (6, 4), (4, 40, 200, 200)),))
    yield Case("special", Operand("F32", (16, 2)), (Operand("F32", (16, 6), fill="special"),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 6)),))
