"""Inputs worth trying on REPEAT."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.repeat import TYPES


def cases() -> Iterator[Case]:
    """Each dimension and all of them; every type; strides on both sides; special values."""
    small, large = (
        (3, 2, 2, 1),
        {"dim0": (9, 2, 2), "dim1": (3, 8, 2), "dim2": (3, 2, 6), "dim3": (3, 2, 2, 3), "all": (6, 4, 4, 2)},
    )
    for name, ne in large.items():
        yield Case(name, Operand("F32", ne), (Operand("F32", small),))
    for dtype in TYPES[1:]:
        yield Case(dtype.lower(), Operand(dtype, (14, 6)), (Operand(dtype, (7, 2), fill="normal:100"),))
    yield Case("scalar", Operand("F32", (5, 3)), (Operand("F32", (1,)),))
    yield Case("column", Operand("F32", (5, 3)), (Operand("F32", (1, 3)),))
    yield Case("same", Operand("F32", (5, 3)), (Operand("F32", (5, 3)),))
    yield Case("permuted", Operand("F32", (6, 4, 6)), (Operand("F32", (3, 4, 2), (4, 24, 12, 96)),))
    yield Case("gaps", Operand("F32", (6, 4), (4, 40, 200, 200)), (Operand("F32", (3, 2), (4, 20, 40, 40)),))
    yield Case("special", Operand("F32", (16, 6)), (Operand("F32", (16, 3), fill="special"),))
    yield Case("empty", Operand("F32", (0, 6)), (Operand("F32", (0, 3)),))
