"""Inputs worth trying on WIN_PART."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def _case(name: str, x: tuple[int, int, int], w: int, fill: str = "normal") -> Case:
    """Return the case of an image (C, W, H)."""
    across, down = -(-x[1] // w), -(-x[2] // w)
    params = {"npx": across, "npy": down, "w": w}
    return Case(name, Operand("F32", (x[0], w, w, across * down)), (Operand("F32", x, fill=fill),), dict(params))


def cases() -> Iterator[Case]:
    """Windows that fit, that reach beyond one or both sides, that are larger than the image, of one pixel; special values."""
    yield _case("fits", (5, 8, 12), 4)
    yield _case("beyond-both", (5, 9, 11), 4)
    yield _case("beyond-the-width", (3, 7, 6), 3)
    yield _case("beyond-the-height", (3, 6, 7), 3)
    yield _case("larger-than-the-image", (3, 5, 4), 7)
    yield _case("one-pixel", (3, 4, 2), 1)
    yield _case("many-channels", (129, 5, 3), 2)
    yield _case("special", (7, 9, 5), 4, "special")
    yield _case("one-element", (1, 1, 1), 1)
