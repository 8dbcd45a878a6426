"""Inputs worth trying on VIEW."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """A part of a row, some columns, every other row, a block type, nothing."""
    x = Operand("F32", (12, 7, 3))
    yield Case("part-of-row", Operand("F32", (5,), alias="src0", offset=16), (x,), {"offset": 16})
    yield Case("columns", Operand("F32", (4, 7, 3), (4, 48, 336, 1008), alias="src0", offset=8), (x,), {"offset": 8})
    yield Case("every-other-row", Operand("F32", (12, 3), (4, 96, 288, 288), alias="src0", offset=48), (x,), {"offset": 48})
    blocks = Operand("Q4_0", (64, 5))
    yield Case("blocks", Operand("Q4_0", (32, 5), (18, 36, 180, 180), alias="src0", offset=18), (blocks,), {"offset": 18})
    yield Case("empty", Operand("F32", (0,), alias="src0", offset=4), (x,), {"offset": 4})
