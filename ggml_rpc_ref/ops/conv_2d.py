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

from math import prod

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.convolution import F16_SUM_OF_PRODUCTS, convolution_cost, convolve
from ggml_rpc_ref.ops.shared.sliding_window import POINT, Axes, axis, params


def shape(node: Node) -> None:
    """Refuse unequal channels, a kernel with gaps, a result of other dimensions."""
    kernel, images, dst = node.source(0), node.source(1), node.dst
    node.require(kernel.is_contiguous, "a contiguous kernel", kernel.nb, at=kernel)
    node.require(kernel.ne[2] == images.ne[2], f"{images.ne[2]} channels in the kernel as in src1", kernel.ne[2], at=kernel)
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


def cost(node: Node) -> Cost:
    """Return the cost: a row of windows at a time as float64, and a gather for each tap."""
    _, height, width = _axes(node)
    return convolution_cost(node, (POINT, height, width), node.source(0).ne[2])


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
    tolerance=F16_SUM_OF_PRODUCTS,
    cost=cost,
)
