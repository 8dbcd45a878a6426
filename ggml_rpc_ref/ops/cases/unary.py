"""Inputs worth trying on UNARY."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.activations import TABLE
from ggml_rpc_ref.ops.shared.elementwise import UNARY_TYPES
from ggml_rpc_ref.ops.tolerance import EXACT, FLOAT32, Tolerance
from ggml_rpc_ref.ops.unary import VEC_KINDS
from ggml_rpc_ref.spec.opcodes import UNARY_OPS

ROUNDED_KINDS = frozenset({"TANH", "ELU", "SIGMOID", "SILU", "EXP", "EXPM1", "SOFTPLUS", "GELU_ERF", "XIELU"})
"""Kinds whose results depend on a mathematics library or the order of additions; GELU and GELU_QUICK are worse, the rest exact."""


def tolerance_of(kind: str) -> Tolerance:
    """Return how near to the oracle a result of that kind must lie."""
    if kind in ("GELU", "GELU_QUICK"):
        return TABLE
    return FLOAT32 if kind in ROUNDED_KINDS else EXACT


def cases() -> Iterator[Case]:
    """Every kind with every type it takes, special values, rows with gaps, in place."""
    for number, kind in enumerate(UNARY_OPS):
        params = {"kind": number} | ({"alpha_n": 0.8, "alpha_p": 1.3, "beta": 0.5, "eps": -1e-6} if kind == "XIELU" else {})
        for types in sorted(UNARY_TYPES):
            if kind in VEC_KINDS and types not in (("F32", "F32"), ("F16", "F16")):
                continue
            src = Operand(types[0], (33, 2), fill="uniform:-12:12")
            name = f"{kind}-{types[0]}-{types[1]}".lower()
            yield Case(name, Operand(types[1], src.ne), (src,), params, tolerance_of(kind))
        special = (
            "values:nan,inf,-inf,0,-0.0,1e-40,-1e-20,6e4,-6e4,88.8,-104,0.5,-0.5,2.5,-2.5,0.49999997"
            if kind == "GELU_QUICK"
            else "special"
        )
        for dtype in ("F32", "F16"):
            src = Operand(dtype, (16, 8), fill=special)
            yield Case(f"{kind}-special-{dtype}".lower(), Operand(dtype, src.ne), (src,), params, tolerance_of(kind))
        gaps = Operand("F32", (9, 4, 3), nb=(4, 48, 192, 576))
        yield Case(f"{kind}-gaps".lower(), Operand("F32", gaps.ne), (gaps,), params, tolerance_of(kind))
        yield Case(
            f"{kind}-in-place".lower(),
            Operand("F32", (17, 3), alias="src0"),
            (Operand("F32", (17, 3)),),
            params,
            tolerance_of(kind),
        )
    for case in _geometry_cases():
        uneven = "permuted" in case.id
        yield from since("UNARY.rows", [case]) if uneven else [case]
    yield from since("UNARY.bf16", _later())


def _geometry_cases() -> Iterator[Case]:
    for kind in ("NEG", "SILU", "GELU", "TANH"):
        params = {"kind": UNARY_OPS.index(kind)}
        permuted = Operand("F32", (9, 4, 3), nb=(4, 108, 36, 432))
        yield Case(f"{kind}-permuted".lower(), Operand("F32", permuted.ne), (permuted,), params, tolerance_of(kind))
        yield Case(
            f"{kind}-dst-permuted".lower(),
            Operand("F32", permuted.ne, permuted.nb),
            (Operand("F32", permuted.ne),),
            params,
            tolerance_of(kind),
        )
        yield Case(f"{kind}-empty".lower(), Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), params, tolerance_of(kind))
    for kind in sorted(VEC_KINDS):
        for dtype, size in (("F32", 4), ("F16", 2)):
            one = Operand(dtype, (1, 5), nb=(3 * size, 4 * size, 20 * size, 20 * size))
            case = Case(f"{kind}-one-element-{dtype}".lower(), Operand(dtype, one.ne), (one,), {"kind": UNARY_OPS.index(kind)})
            yield replace(case, tolerance=tolerance_of(kind))
    wide_eps = {"kind": UNARY_OPS.index("XIELU"), "alpha_n": 0.8, "alpha_p": 1.3, "beta": 0.5, "eps": -0.75}
    yield Case("xielu-eps", Operand("F32", (33, 2)), (Operand("F32", (33, 2)),), wide_eps, FLOAT32)
    halves = Operand(
        "F32", (12,), fill="values:0.5,1.5,2.5,-0.5,-1.5,-2.5,0.49999997,-0.49999997,8388607.5,-8388607.5,1e30,4503599627370497"
    )
    for kind in ("FLOOR", "CEIL", "ROUND", "TRUNC"):
        yield Case(f"{kind}-halves".lower(), Operand("F32", halves.ne), (halves,), {"kind": UNARY_OPS.index(kind)}, EXACT)


def _later() -> Iterator[Case]:
    for kind in sorted(VEC_KINDS):
        params = {"kind": UNARY_OPS.index(kind)}
        for name, x in (
            ("bf16", Operand("BF16", (33, 2), fill="uniform:-12:12")),
            ("special-bf16", Operand("BF16", (16, 8), fill="special")),
        ):
            yield Case(f"{kind}-{name}".lower(), Operand("BF16", x.ne), (x,), params, FLOAT32)
        gaps = Operand("BF16", (9, 4, 3), nb=(2, 24, 96, 288))
        yield Case(f"{kind}-gaps-bf16".lower(), Operand("BF16", gaps.ne), (gaps,), params, FLOAT32)
