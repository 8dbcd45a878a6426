"""Inputs worth trying on GLU."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.op import Params
from ggml_rpc_ref.ops.shared.activations import TABLE
from ggml_rpc_ref.ops.tolerance import EXACT, FLOAT32, Tolerance
from ggml_rpc_ref.spec.opcodes import GLU_OPS, kinds
from ggml_rpc_ref.spec.versions import NEWEST

GATED_TABLE = replace(TABLE, atol=10 * TABLE.atol, reason=f"{TABLE.reason}; here times y, for |y| up to 10")


def tolerance_of(kind: str) -> Tolerance:
    """Return how near to the oracle a result of that kind must lie."""
    if kind in ("GEGLU", "GEGLU_QUICK"):
        return GATED_TABLE
    return EXACT if kind == "REGLU" else FLOAT32


def cases() -> Iterator[Case]:
    """Every kind: halves, swapped halves and two sources, both types, gaps between rows, special values."""
    for number, kind in enumerate(GLU_OPS):
        params = {"kind": number} | ({"alpha": 1.702, "limit": 1.25} if kind == "SWIGLU_OAI" else {})
        tolerance = tolerance_of(kind)
        for dtype in ("F32",) if kind == "SWIGLU_OAI" else ("F32", "F16"):
            whole, half = Operand(dtype, (70, 3), fill="normal:3"), Operand(dtype, (35, 3), fill="normal:3")
            name = f"{kind}-{dtype}".lower()
            yield Case(name, Operand(dtype, (35, 3)), (whole,), params, tolerance)
            yield Case(f"{name}-swapped", Operand(dtype, (35, 3)), (whole,), params | {"swapped": 1}, tolerance)
            yield Case(f"{name}-two", Operand(dtype, (35, 3)), (half, half), params, tolerance)
        gaps = Operand("F32", (18, 4, 3), nb=(4, 96, 384, 1152))
        yield Case(f"{kind}-gaps".lower(), Operand("F32", (9, 4, 3)), (gaps,), params, tolerance)
        special = Operand("F32", (16, 6), fill="values:nan,inf,-inf,0,-0.0,1e-40,-1e-20,6e3,-6e3,88.8,-104,0.5,-0.5,11,-11,9.99")
        yield Case(f"{kind}-special".lower(), Operand("F32", special.ne), (special, Operand("F32", special.ne)), params, tolerance)
        gates = "values:nan,inf,-inf,0,-0.0,0.5,-0.5,6e3,-6e3,88.8,11,-11"
        both = (Operand("F32", special.ne, fill=gates), Operand("F32", special.ne, fill="values:inf,1,nan,-inf,2"))
        yield Case(f"{kind}-special-both".lower(), Operand("F32", special.ne), both, params, tolerance)
        yield from _far_cases(kind, params | ({"limit": float("inf")} if kind == "SWIGLU_OAI" else {}), tolerance)
    odd_row = Operand("F32", (7, 3))
    yield Case("odd-row", Operand("F32", (3, 3)), (odd_row,), {"kind": 2}, FLOAT32)
    view = Operand("F32", (9, 4), nb=(4, 72, 288, 288))
    yield Case("halves-as-views", Operand("F32", view.ne), (view, view), {"kind": 2}, FLOAT32)
    yield Case(
        "in-place", Operand("F32", (9, 4), alias="src0"), (Operand("F32", (9, 4)), Operand("F32", (9, 4))), {"kind": 2}, FLOAT32
    )
    yield Case("4d", Operand("F32", (5, 4, 3, 2)), (Operand("F32", (10, 4, 3, 2)),), {"kind": 1}, GATED_TABLE)
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"kind": 2}, FLOAT32)
    yield from _clamp_cases()
    yield from since("GLU.bf16", _later())


def _far_cases(kind: str, params: Params, tolerance: Tolerance) -> Iterator[Case]:
    """Yield infinities that meet what of f(x) is left in float32, or nothing."""
    for dtype in ("F32",) if kind == "SWIGLU_OAI" else ("F32", "F16"):
        x, y = (Operand(dtype, (35, 3), fill=f"values:{v}") for v in ("-5.9,-8.5,-60,-88.75,-100,-300,3", "inf,-inf,1,2,-3"))
        yield Case(f"{kind}-far-{dtype}".lower(), Operand(dtype, x.ne), (x, y), params, tolerance)


def _clamp_cases() -> Iterator[Case]:
    params = {"kind": kinds("GLU", NEWEST).index("SWIGLU_CLAMP"), "limit": 1.25}
    for dtype in ("F32", "F16"):
        whole, half, dst = (
            Operand(dtype, (70, 3), fill="normal:3"),
            Operand(dtype, (35, 3), fill="normal:3"),
            Operand(dtype, (35, 3)),
        )
        name = f"swiglu_clamp-{dtype}".lower()
        yield Case(name, dst, (whole,), params)
        yield Case(f"{name}-swapped", dst, (whole,), params | {"swapped": 1})
        yield Case(f"{name}-two", dst, (half, half), params)
    values = "values:nan,inf,-inf,0,-0.0,1e-40,-1e-20,6e3,-6e3,88.8,-104,0.5,-0.5,11,-11,9.99"
    both = (Operand("F32", (16, 6), fill=values), Operand("F32", (16, 6), fill="values:inf,1,nan,-inf,2"))
    yield Case("swiglu_clamp-special-both", Operand("F32", (16, 6)), both, params)
    yield Case("swiglu_clamp-no-limit", Operand("F32", (16, 6)), both, params | {"limit": float("inf")})


def _later() -> Iterator[Case]:
    for number, kind in enumerate(GLU_OPS):
        if kind != "SWIGLU_OAI":
            whole, half, dst = (
                Operand("BF16", (70, 3), fill="normal:3"),
                Operand("BF16", (35, 3), fill="normal:3"),
                Operand("BF16", (35, 3)),
            )
            yield Case(f"{kind}-bf16".lower(), dst, (whole,), {"kind": number}, FLOAT32)
            yield Case(f"{kind}-bf16-two".lower(), dst, (half, half), {"kind": number}, FLOAT32)
            values = "values:nan,inf,-inf,0,-0.0,0.5,-0.5,6e3,-6e3,88.8,11,-11"
            both = (Operand("BF16", (16, 6), fill=values), Operand("BF16", (16, 6), fill="values:inf,1,nan,-inf,2"))
            yield Case(f"{kind}-bf16-special".lower(), Operand("BF16", (16, 6)), both, {"kind": number}, FLOAT32)
