"""Inputs worth trying on NONE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """A few types; nothing can go wrong but a server that writes."""
    for dtype in ("F32", "F16", "I64"):
        yield Case(f"leaf-{dtype.lower()}", Operand(dtype, (5, 3)), ())
    yield Case("leaf-q4_0", Operand("Q4_0", (64, 3)), ())
    yield Case("gaps", Operand("F32", (4, 3), nb=(8, 48, 144, 144)), ())
