"""Inputs worth trying on SCALE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.tolerance import EXACT, FLOAT32


def cases() -> Iterator[Case]:
    """Lengths around vector widths, with and without bias, special values and parameters, in place."""
    for n in (1, 7, 64, 129):
        for bias in (0.0, 0.75):
            params, tolerance = {"scale": -1.7, "bias": bias}, FLOAT32 if bias else EXACT
            yield Case(f"n{n}-bias{bias}", Operand("F32", (n, 3)), (Operand("F32", (n, 3)),), params, tolerance)
    x = Operand("F32", (8, 4, 3, 2))
    yield Case("4d", Operand("F32", x.ne), (x,), {"scale": 0.125, "bias": -3.0})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"scale": 3.0, "bias": 0.0})
    yield Case("in-place-bias", Operand("F32", x.ne, alias="src0"), (x,), {"scale": 3.0, "bias": 1e-3})
    special = Operand("F32", (16, 9), fill="special")
    for name, scale, bias in (
        ("zero", 0.0, 0.0),
        ("large", 1e30, 1.0),
        ("minus-zero-bias", -2.0, -0.0),
        ("infinite", float("inf"), 1.0),
    ):
        params, tolerance = {"scale": scale, "bias": bias}, FLOAT32 if bias else EXACT
        yield Case(f"special-{name}", Operand("F32", special.ne), (special,), params, tolerance)
    yield Case("nan-parameter", Operand("F32", (9,)), (Operand("F32", (9,)),), {"scale": float("nan"), "bias": 0.0})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"scale": 2.0, "bias": 1.0})
    yield from since("SCALE.bf16", _later())


def _later() -> Iterator[Case]:
    for bias in (0.0, 0.75):
        params = {"scale": -1.7, "bias": bias}
        yield Case(f"bf16-bias{bias}", Operand("BF16", (129, 3)), (Operand("BF16", (129, 3)),), params)
    special = Operand("BF16", (16, 9), fill="special")
    yield Case("bf16-special", Operand("BF16", special.ne), (special,), {"scale": 1e30, "bias": 1.0})
    yield Case("bf16-in-place", Operand("BF16", (33, 3), alias="src0"), (Operand("BF16", (33, 3)),), {"scale": 3.0, "bias": 0.0})
