"""Inputs worth trying on FILL."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since


def cases() -> Iterator[Case]:
    """Numbers of every kind; gaps; in place; nothing."""
    x = Operand("F32", (9, 4, 3, 2))
    for name, c in {"zero": 0.0, "minus-zero": -0.0, "pi": 3.14159265, "nan": float("nan"), "minus-inf": float("-inf")}.items():
        yield Case(name, Operand("F32", x.ne), (x,), {"c": c})
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), (x,), {"c": 2.5})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"c": -1.0})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"c": 1.0})
    yield from since("FILL.f16", _later())


def _later() -> Iterator[Case]:
    x = Operand("F16", (9, 4, 3, 2))
    for name, c in {"pi": 3.14159265, "nan": float("nan"), "beyond": 7e4, "tiny": 3e-8}.items():
        yield Case(f"f16-{name}", Operand("F16", x.ne), (x,), {"c": c})
    yield Case("f16-gaps", Operand("F16", x.ne, (2, 20, 100, 320)), (x,), {"c": 2.5})
