"""Inputs worth trying on TRANSPOSE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """A matrix, a stack of them, narrow types, nothing."""
    yield Case("matrix", Operand("F32", (3, 7), (28, 4, 84, 84), alias="src0"), (Operand("F32", (7, 3)),))
    yield Case("stack", Operand("F16", (3, 7, 2, 2), (14, 2, 42, 84), alias="src0"), (Operand("F16", (7, 3, 2, 2)),))
    yield Case("empty", Operand("F32", (3, 0), (0, 4, 0, 0), alias="src0"), (Operand("F32", (0, 3)),))
