"""Inputs worth trying on UPSCALE."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.convolution import NON_FINITE
from ggml_rpc_ref.ops.upscale import ALIGN_CORNERS, ANTIALIAS, BICUBIC, BILINEAR, NEAREST
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str, x: Quad, result: Quad, mode: int, *, nbs: tuple[Quad | None, Quad | None] = (None, None), fill: str = "normal"
) -> Case:
    """Return a case; nbs are the strides of source and result."""
    return Case(name, Operand("F32", result, nbs[1]), (Operand("F32", x, nbs[0], fill),), {"mode": mode})


MODES = {
    "nearest": NEAREST,
    "bilinear": BILINEAR,
    "bicubic": BICUBIC,
    "nearest-aligned": NEAREST | ALIGN_CORNERS,
    "bilinear-aligned": BILINEAR | ALIGN_CORNERS,
    "bicubic-aligned": BICUBIC | ALIGN_CORNERS,
    "antialias": BILINEAR | ANTIALIAS,
    "antialias-aligned": BILINEAR | ANTIALIAS | ALIGN_CORNERS,
}


def cases() -> Iterator[Case]:
    """Modes that every version has, and others."""
    for case in _cases():
        mode, one = case.params["mode"], "one-pixel" in case.id
        old = mode in (NEAREST, BILINEAR) or (mode == BILINEAR | ALIGN_CORNERS and not one)
        yield from [case] if old else since("UPSCALE.modes", [case])


def _cases() -> Iterator[Case]:
    """Every mode and flag: twice the size, growing and shrinking in all dimensions, one pixel, same size, views, special values."""
    for word, mode in MODES.items():
        yield _case(f"{word}-twice", (13, 11, 3, 2), (26, 22, 3, 2), mode)
        yield _case(f"{word}-grow", (2, 5, 7, 3), (5, 7, 11, 5), mode)
        yield _case(f"{word}-shrink", (5, 7, 11, 5), (2, 5, 7, 3), mode)
        yield _case(f"{word}-shrink-much", (131, 67, 1, 1), (7, 3, 1, 1), mode)
        yield _case(f"{word}-wider-and-lower", (7, 17, 2, 1), (19, 4, 2, 1), mode)
        yield _case(f"{word}-from-one-pixel", (1, 4, 3, 2), (2, 8, 3, 2), mode)
        yield _case(f"{word}-to-one-pixel", (4, 1, 3, 2), (1, 1, 3, 2), mode)
        yield _case(f"{word}-same-size", (9, 8, 2, 1), (9, 8, 2, 1), mode)
        fill = "special" if mode & 0xFF == NEAREST else NON_FINITE
        yield _case(f"{word}-special", (33, 17, 1, 1), (48, 21, 1, 1), mode, fill=fill)
        yield _case(f"{word}-view", (7, 5, 2, 2), (10, 9, 2, 2), mode, nbs=((4, 32, 200, 512), None))
        yield _case(f"{word}-permuted", (7, 5, 2, 2), (10, 9, 2, 2), mode, nbs=((16, 112, 8, 4), (4, 80, 40, 720)))
    for word in ("nearest", "bilinear"):
        yield _case(f"{word}-one-element", (1, 1, 1, 1), (1, 1, 1, 1), MODES[word])
