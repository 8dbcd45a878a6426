"""Inputs worth trying on WIN_UNPART."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand

Triple = tuple[int, int, int]


def _case(name: str, image: Triple, w: int, windows: Triple | None = None, fill: str = "normal") -> Case:
    """Return the case of an image (C, W, H); windows are (width, height, count) where there is more than it takes."""
    across, down = -(-image[1] // w), -(-image[2] // w)
    ne = (image[0], *(windows or (w, w, across * down)))
    return Case(name, Operand("F32", image), (Operand("F32", ne, fill=fill),), {"w": w})


def cases() -> Iterator[Case]:
    """Windows that fit, that reach beyond one or both sides, that are larger than the image, more than it takes, or as small as an
    image below w; special values."""
    yield _case("fits", (5, 8, 12), 4)
    yield _case("beyond-both", (5, 9, 11), 4)
    yield _case("beyond-the-width", (3, 7, 6), 3)
    yield _case("beyond-the-height", (3, 6, 7), 3)
    yield _case("larger-than-the-image", (3, 5, 4), 7)
    yield _case("one-pixel", (3, 4, 2), 1)
    yield _case("many-channels", (129, 5, 3), 2)
    yield _case("more-windows", (3, 5, 4), 2, (2, 2, 9))
    yield _case("larger-windows", (3, 5, 4), 2, (3, 4, 6))
    yield _case("smaller-windows", (3, 2, 3), 7, (2, 3, 1))
    yield _case("narrower-windows", (3, 2, 9), 4, (2, 4, 3))
    yield _case("lower-windows", (3, 9, 2), 4, (4, 2, 3))
    yield _case("special", (7, 9, 5), 4, fill="special")
    yield _case("one-element", (1, 1, 1), 1)
