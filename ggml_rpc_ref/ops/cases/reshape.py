"""Inputs worth trying on RESHAPE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Fewer, more and other dimensions; a block type; nothing."""
    for name, ne in {"flat": (210,), "matrix": (35, 6), "4d": (5, 3, 2, 7), "same": (7, 5, 3, 2)}.items():
        yield Case(name, Operand("F32", ne, alias="src0"), (Operand("F32", (7, 5, 3, 2)),))
    yield Case("blocks", Operand("Q8_0", (32, 6), alias="src0"), (Operand("Q8_0", (64, 3)),))
    yield Case("empty", Operand("F32", (0, 4), alias="src0"), (Operand("F32", (3, 0)),))
