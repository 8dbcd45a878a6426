"""Inputs worth trying on CLAMP."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since


def cases() -> Iterator[Case]:
    """Both types, every order of bounds, infinite and NaN bounds, special values, in place, gaps."""
    bounds = {
        "usual": (-0.5, 1.25),
        "equal": (0.75, 0.75),
        "wrong-order": (1.0, -1.0),
        "open": (float("-inf"), 0.5),
        "zeros": (-0.0, 0.0),
    }
    bounds |= {"nan-min": (float("nan"), 1.0), "nan-max": (-1.0, float("nan")), "unrounded": (-0.1, 0.3)}
    for name, (low, high) in bounds.items():
        for dtype in ("F32", "F16"):
            x = Operand(dtype, (16, 5), fill="special")
            yield Case(f"{name}-{dtype}".lower(), Operand(dtype, x.ne), (x,), {"min": low, "max": high})
    x, params = Operand("F32", (9, 4, 3, 2)), {"min": -0.5, "max": 0.5}
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), params)
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 160, 480)), (Operand("F32", x.ne, (4, 48, 192, 576)),), params)
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), params)
    yield from since("CLAMP.strides", _later())


def _later() -> Iterator[Case]:
    params = {"min": -0.5, "max": 0.5}
    for dtype, size in (("F32", 4), ("F16", 2)):
        ne = (9, 4, 3, 2)
        permuted, gaps = (size, 27 * size, 9 * size, 108 * size), (size, 10 * size, 50 * size, 200 * size)
        x, y = Operand(dtype, ne, permuted), Operand(dtype, ne, gaps)
        yield Case(f"permuted-{dtype}".lower(), Operand(dtype, ne), (x,), params)
        yield Case(f"dst-permuted-{dtype}".lower(), Operand(dtype, ne, permuted), (y,), params)
