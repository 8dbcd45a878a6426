"""CONV_2D: convolution of images with a bank of kernels, computed where IM2COL and MUL_MAT would have been two steps.

    dst[ow, oh, oc, n] = sum over kw, kh, ic of src0[kw, kh, ic, oc] * src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, ic, n]

A tap on padding counts as 0 (so an infinity in the kernel gives NaN there). src0: the kernel, F32 or F16, contiguous, ne = (KW,
KH, IC, OC). src1: F32 images, ne = (IW, IH, IC, N), lying anywhere. dst: F32, ne = (OW, OH, OC, N), lying anywhere; OW and OH
are (I + 2p - d(K - 1) - 1) / s + 1 with a division that truncates towards 0. With an F16 kernel the image's elements are
rounded to F16 first, which makes those above 65504 infinite: that is upstream's definition, not only rounding. Empty: no
channels or no taps give 0.

Source: ggml_conv_2d_direct in ggml.c; ggml_compute_forward_conv_2d_impl in ggml-cpu/ops.cpp (it asserts the kernel only; src1
and dst of other types would be read as F32).
"""

from collections.abc import Iterator
from math import prod

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Source, Tolerance
from ggml_rpc_ref.ops.shared.sliding_window import POINT, Axes, Axis, axis, blocks, params
from ggml_rpc_ref.tensor import Array, Quad

SUM_OF_PRODUCTS = Tolerance(1e-5, 2e-5, 1e-10, "float32 sums of products in another order; the atol covers products that cancel")
F16_SUM_OF_PRODUCTS = Tolerance(
    1e-5, 2e-5, 1e-5, "with an F16 kernel, sums of 128 products and more are summed in F16 on processors with AVX512-FP16"
)
BY_KERNEL = {"F32": SUM_OF_PRODUCTS, "F16": F16_SUM_OF_PRODUCTS}

ODD_VALUES = "values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3,0.75,2.5,5,-0.5"
"""NaN and infinities among small numbers: no huge ones, whose products overflow in one order of summation and not in another."""


def shape(node: Node) -> None:
    """Refuse unequal channels, a kernel with gaps, a result of other dimensions."""
    kernel, images, dst = node.source(0), node.source(1), node.dst
    node.require(kernel.is_contiguous, "a contiguous kernel", kernel.nb)
    node.require(kernel.ne[2] == images.ne[2], f"{images.ne[2]} channels in the kernel", kernel.ne[2])
    _, height, width = _axes(node)
    ne = (width.outputs, height.outputs, kernel.ne[3], images.ne[3])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)


def _axes(node: Node) -> Axes:
    kernel, images = node.source(0), node.source(1)
    width, height = (axis(node, number, images.ne[number], kernel.ne[number]) for number in (0, 1))
    return POINT, height, width


def oracle(node: Node) -> None:
    """Compute the formula, sums in float64."""
    images, kernel = node.source(1).array[:, :, None], node.source(0).array
    convolve(images, kernel.reshape(len(kernel), prod(kernel.shape[1:])), _axes(node), node.dst.array[:, :, None])


@np.errstate(all="ignore")
def convolve(images: Array, kernels: Array, axes: Axes, result: Array) -> None:
    """Write the convolution of images with kernels.

    Args:
        images: shape (n, channels, depth, height, width).
        kernels: shape (outputs, channels * taps); where they are float16 the images are rounded to it.
        axes: the windows along depth, height and width.
        result: shape (n, outputs, depth, height, width), written in place.
    """
    if kernels.size == 0 or result.size == 0:
        result[...] = 0
        return
    weights = kernels.astype(np.float64)
    for block in blocks(images, axes):
        part = result[block.images, :, block.depth, block.rows]
        taps = block.values.reshape(len(block.values), weights.shape[1], part.shape[2] * part.shape[3])
        part[...] = (weights @ taps.astype(kernels.dtype, copy=False).astype(np.float64)).reshape(part.shape)


def _case(
    name: str,
    kernel: Quad,
    images: Quad,
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    d: tuple[int, int] = (1, 1),
    *,
    kernel_type: str = "F32",
    nb: Quad | None = None,
    dst_nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel and images."""
    width, height = (Axis(images[a], kernel[a], s[a], p[a], d[a]).outputs for a in (0, 1))
    values = {"s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1], "d0": d[0], "d1": d[1]}
    sources = (Operand(kernel_type, kernel), Operand("F32", images, nb, fill))
    dst = Operand("F32", (width, height, kernel[3], images[3]), dst_nb)
    return Case(name, dst, sources, dict(values), BY_KERNEL[kernel_type])


def cases() -> Iterator[Case]:
    """Strides, paddings, dilations, kernel types, channel and output counts, tensors lying anywhere, edges of a window."""
    for kernel_type in ("F32", "F16"):
        tail = kernel_type.lower()
        yield _case(f"plain-{tail}", (3, 3, 3, 4), (10, 11, 3, 2), kernel_type=kernel_type)
        yield _case(f"everything-{tail}", (3, 5, 3, 4), (20, 17, 3, 2), (3, 2), (4, 3), (2, 2), kernel_type=kernel_type)
        yield _case(f"one-by-one-{tail}", (1, 1, 67, 5), (5, 3, 67, 1), kernel_type=kernel_type)
        yield _case(f"many-channels-{tail}", (3, 3, 64, 17), (4, 4, 64, 1), p=(1, 1), kernel_type=kernel_type)
        yield _case(f"special-{tail}", (2, 2, 2, 3), (16, 15, 2, 1), p=(1, 1), kernel_type=kernel_type, fill=ODD_VALUES)
        yield _case(f"beyond-f16-{tail}", (2, 2, 1, 1), (5, 4, 1, 1), kernel_type=kernel_type, fill="normal:1e5")
    yield _case("padded", (3, 2, 5, 7), (7, 9, 5, 1), p=(1, 2))
    yield _case("strided", (3, 3, 2, 2), (13, 11, 2, 3), (2, 3), (1, 1))
    yield _case("dilated", (3, 2, 2, 1), (13, 11, 2, 1), d=(2, 3))
    yield _case("padding-beyond-the-image", (2, 2, 1, 1), (2, 2, 1, 1), p=(3, 5))
    yield _case("kernel-larger-than-the-image", (7, 5, 2, 2), (3, 2, 2, 1), p=(3, 3))
    yield _case("a-single-output", (4, 4, 3, 2), (4, 4, 3, 1))
    yield _case("crop", (2, 2, 1, 1), (9, 8, 1, 1), p=(-2, -1))
    yield _case("images-apart", (3, 2, 3, 2), (7, 5, 3, 2), nb=(4, 32, 192, 640))
    yield _case("images-permuted", (3, 2, 3, 2), (7, 5, 3, 2), nb=(12, 84, 4, 420))
    yield _case("result-permuted", (3, 2, 3, 2), (7, 5, 3, 2), dst_nb=(8, 40, 4, 160))


OP = Op(
    name="CONV_2D",
    sources=(
        Source("kernel", ("F32", "F16"), "ne = (KW, KH, IC, OC)"),
        Source("images", ("F32",), "ne = (IW, IH, IC, N)"),
    ),
    types=("F32",),
    params=params(2),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=F16_SUM_OF_PRODUCTS,
)
