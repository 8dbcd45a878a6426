"""Inputs worth trying on IM2COL_BACK."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kernel: tuple[int, int],
    image: Quad,
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    d: tuple[int, int] = (1, 1),
    outputs: tuple[int, int] | None = None,
    *,
    nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return a case in two dimensions; outputs are (OW, OH), by default those that IM2COL makes of the image."""
    forward = (Axis(image[a], kernel[a], s[a], p[a], d[a]).outputs for a in (0, 1))
    out_w, out_h = outputs or forward
    gradient = Operand("F32", (kernel[0] * kernel[1] * image[2], out_w, out_h, image[3]), fill=fill)
    values = {"s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1], "d0": d[0], "d1": d[1], "is_2D": 1}
    return Case(name, Operand("F32", image, nb), (gradient, Operand("F32", (*kernel, image[2], 2))), dict(values))


def _flat(name: str, kernel: int, image: tuple[int, int, int], s: int = 1, p: int = 0, d: int = 1) -> Case:
    """Return a case in one dimension."""
    gradient = Operand("F32", (kernel * image[1], Axis(image[0], kernel, s, p, d).outputs, image[2]))
    values = {"s0": s, "p0": p, "d0": d, "is_2D": 0}
    return Case(name, Operand("F32", image), (gradient, Operand("F32", (kernel, image[1], 2))), dict(values))


def cases() -> Iterator[Case]:
    """One and two dimensions, strides, paddings and dilations, more and fewer outputs than the image has, channels apart."""
    yield _case("plain", (3, 3), (10, 11, 3, 2))
    yield _case("padded", (3, 2), (7, 9, 5, 1), p=(1, 2))
    yield _case("strided", (3, 3), (13, 11, 2, 3), s=(2, 3), p=(1, 1))
    yield _case("stride-beyond-the-kernel", (2, 1), (11, 9, 2, 1), s=(4, 3))
    yield _case("dilated", (3, 2), (13, 11, 2, 1), d=(2, 3))
    yield _case("everything", (3, 5), (20, 17, 3, 2), s=(3, 2), p=(4, 3), d=(2, 2))
    yield _case("crop", (2, 2), (9, 8, 1, 1), p=(-2, -1))
    yield _case("dilation-zero", (3, 3), (4, 5, 1, 1), d=(0, 0))
    yield _case("more-outputs-than-fit", (3, 3), (5, 4, 2, 1), outputs=(9, 8))
    yield _case("fewer-outputs-than-fit", (3, 3), (9, 8, 2, 1), outputs=(3, 2))
    yield _case("many-channels", (3, 3), (4, 4, 65, 1), p=(1, 1))
    yield _case("special", (3, 2), (9, 8, 3, 1), p=(1, 1), fill="special")
    yield _case("channels-apart", (3, 2), (7, 5, 3, 2), nb=(4, 28, 192, 640))
    yield _case("channels-permuted", (3, 2), (7, 5, 3, 2), nb=(4, 28, 280, 140))
    yield _flat("flat", 3, (11, 4, 3))
    yield _flat("flat-padded-strided-dilated", 3, (23, 4, 2), 2, 3, 3)
    yield _case("one-element", (1, 1), (1, 1, 1, 1))
    yield from since("IM2COL_BACK.f16", _later())


def _later() -> Iterator[Case]:
    for case in (_case("f16-kernel", (3, 2), (7, 9, 5, 1), p=(1, 2)), _flat("flat-f16-kernel", 3, (11, 4, 3))):
        kernel = case.src[1]
        assert kernel is not None
        yield replace(case, src=(case.src[0], replace(kernel, dtype="F16")))
