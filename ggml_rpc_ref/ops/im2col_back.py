"""IM2COL_BACK: the gradient of an image from the gradient of its IM2COL: every pixel gathers what its copies received.

    dst[iw, ih, ic, n] = sum of src0[ic*KH*KW + kh*KW + kw, ow, oh, n]
                         over all taps and outputs with ow*s0 + kw*d0 - p0 = iw and oh*s1 + kh*d1 - p1 = ih

With is_2D = 1: src0 (gradient) ne = (IC*KH*KW, OW, OH, N), src1 (kernel) ne = (KW, KH, ..), dst ne = (IW, IH, IC, N).
With any other is_2D: src0 ne = (IC*KW, OW, N), src1 ne = (KW, ..), dst ne = (IW, IC, N); s1, p1, d1 not read.
OW and OH may be any: the client says dst's dimensions, and windows that reach beyond it give nothing to it.

All F32. src1 lends its dimensions only. src0 is contiguous, dst's planes are without gaps (as IM2COL's image); its channels and
images may lie anywhere. Sums are in float32, taps in ascending order. A pixel that no window touches becomes 0.

Source: ggml_im2col_back in ggml.c; ggml_compute_forward_im2col_back_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.sliding_window import POINT, Axis, axis, params
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse a gradient whose rows are not the windows of so many channels, gaps in it or in dst's planes, shared bytes."""
    gradient, kernel, dst = node.source(0), node.source(1), node.dst
    node.require(gradient.is_contiguous, "a contiguous gradient", gradient.nb)
    node.require(dst.nb[0] == 4, "nb[0] == 4", dst.nb[0])
    if node.i32("is_2D") == 1:
        taps, channels, images = kernel.ne[0] * kernel.ne[1], dst.ne[2], dst.ne[3]
        node.require(gradient.ne[3] == images, f"{images} images in the gradient", gradient.ne[3])
        node.require(dst.ne[1] <= 1 or dst.nb[1] == 4 * dst.ne[0], "planes without gaps", dst.nb[1])
    else:
        taps, channels, images = kernel.ne[0], dst.ne[1], dst.ne[2]
        node.require(gradient.ne[2:] == (images, 1), f"ne[2:] == ({images}, 1) in the gradient", gradient.ne)
        node.require(dst.ne[3] == 1, "ne[3] == 1 in one dimension", dst.ne[3])
    node.require(gradient.ne[0] == taps * channels, f"src0.ne[0] == {taps} * {channels}", gradient.ne[0])
    _axes(node)


def _axes(node: Node) -> tuple[Axis, Axis]:
    kernel, dst = node.source(1), node.dst
    height = axis(node, 1, dst.ne[1], kernel.ne[1]) if node.i32("is_2D") == 1 else POINT
    return height, axis(node, 0, dst.ne[0], kernel.ne[0])


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add up tap by tap: within one tap no two outputs stand on the same pixel."""
    height, width = _axes(node)
    flat = node.i32("is_2D") != 1
    dst, gradient = node.dst.array, node.source(0)
    if gradient.nelements == 0:
        dst[...] = 0
        return
    dst = dst[0][:, :, None] if flat else dst  # to (n, channels, height, width)
    out_w, out_h = gradient.ne[1], 1 if flat else gradient.ne[2]
    received = gradient.array.reshape(len(dst), out_h, out_w, dst.shape[1], height.kernel, width.kernel)
    total = np.zeros(dst.shape, np.float32)
    for kh, kw in np.ndindex(height.kernel, width.kernel):
        (of_row, row), (of_column, column) = height.span(kh, 0, out_h), width.span(kw, 0, out_w)
        total[:, :, row, column] += received[:, of_row, of_column, :, kh, kw].transpose(0, 3, 1, 2)
    dst[...] = total


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


OP = Op(
    name="IM2COL_BACK",
    sources=(
        Source("gradient", ("F32",), "ne = (IC*KH*KW, OW, OH, N), or (IC*KW, OW, N)"),
        Source("kernel", ("F32",), "ne = (KW, KH, ..), or (KW, ..); only its dimensions count"),
    ),
    types=("F32",),
    params=(*params(2), Param("is_2D", "i32", 6, "1: two dimensions; else one")),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
