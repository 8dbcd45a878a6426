"""Inputs worth trying on LEAKY_RELU."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def cases() -> Iterator[Case]:
    """Both types, several slopes, special values, gaps, in place."""
    for dtype in ("F32", "F16"):
        for slope in (0.1, 0.0, -2.0, 1.5):
            x = Operand(dtype, (33, 3), fill="normal:3")
            yield Case(f"slope{slope}-{dtype}".lower(), Operand(dtype, x.ne), (x,), {"negative_slope": slope})
        special = Operand(dtype, (16, 6), fill="special")
        yield Case(f"special-{dtype}".lower(), Operand(dtype, special.ne), (special,), {"negative_slope": 0.25})
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("infinite-slope", Operand("F32", x.ne), (x,), {"negative_slope": float("inf")})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"negative_slope": 0.1})
    gaps = Operand("F32", x.ne, (4, 48, 192, 576))
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 160, 480)), (gaps,), {"negative_slope": 0.1})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"negative_slope": 0.1})
