"""Inputs worth trying on FILL."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Numbers of every kind; gaps; in place; nothing."""
    x = Operand("F32", (9, 4, 3, 2))
    for name, c in {"zero": 0.0, "minus-zero": -0.0, "pi": 3.14159265, "nan": float("nan"), "minus-inf": float("-inf")}.items():
        yield Case(name, Operand("F32", x.ne), (x,), {"c": c})
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), (x,), {"c": 2.5})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"c": -1.0})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"c": 1.0})
