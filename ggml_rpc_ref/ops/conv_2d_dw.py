"""CONV_2D_DW: depthwise convolution: every channel of an image with a kernel of its own.

    dst[ow, oh, c, n] = sum over kw, kh of src0[kw, kh, 0, c] * src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, c, n]

A tap on padding is left out (an infinity in the kernel does no harm there, unlike in CONV_2D). All F32. src0: the kernel, ne =
(KW, KH, 1, C). src1: images, ne = (IW, IH, C, N). dst: ne = (OW, OH, C, N); OW and OH are (I + 2p - d(K - 1) - 1) / s + 1 with
a division that truncates towards 0.

The three lie in memory in one of two orders, without gaps: all in ne order (WHCN), or all with the channels innermost (CWHN:
channel, width, height, image). Images that are contiguous in ne order, even if only because they have one pixel or one channel,
mean the first; upstream reads the other two in the order of the images whatever their strides say.

Source: ggml_conv_2d_dw_direct in ggml.c; ggml_compute_forward_conv_2d_dw in ggml-cpu/ops.cpp.
"""

from itertools import product

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source, later
from ggml_rpc_ref.ops.shared.convolution import SUM_OF_PRODUCTS
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab
from ggml_rpc_ref.ops.shared.sliding_window import Axis, axis, params
from ggml_rpc_ref.tensor import Array, Quad, Tensor

CWHN: Quad = (2, 0, 1, 3)

KERNEL_CWHN: Quad = (3, 2, 0, 1)


def shape(node: Node) -> None:
    """Refuse unequal channels, a result of other dimensions, memory orders that do not go together."""
    kernel, images, dst = node.source(0), node.source(1), node.dst
    node.require(kernel.ne[2:] == (1, images.ne[2]), f"src0.ne[2:] == (1, {images.ne[2]})", kernel.ne, at=kernel)
    height, width = _axes(node)
    ne = (width.outputs, height.outputs, images.ne[2], images.ne[3])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    _check_order(node)


def _check_order(node: Node) -> None:
    kernel, images, dst = node.source(0), node.source(1), node.dst
    # upstream chooses its kernel by ggml_is_contiguous(images) and then ignores the other strides
    if images.is_contiguous:
        for name, tensor in (("kernel", kernel), ("result", dst)):
            node.require(tensor.is_contiguous, f"a contiguous {name}, as the images are", tensor.nb, at=tensor)
        return
    for name, tensor, order in (("images", images, CWHN), ("kernel", kernel, KERNEL_CWHN), ("result", dst, CWHN)):
        want = packed_nb(tensor.ne, order, tensor.dtype.size)
        node.require(_strides_agree(tensor, want), f"{name} with nb {want} (or contiguous images)", tensor.nb, at=tensor)
    node.require(
        images.nb[2] == 4 and images.nb[1] > images.nb[0] > 4, "images with nb[1] > nb[0] > nb[2] == 4", images.nb, at=images
    )
    node.require(kernel.nb[1] >= kernel.nb[0] >= kernel.nb[2], "a kernel with nb[1] >= nb[0] >= nb[2]", kernel.nb, at=kernel)


def packed_nb(ne: Quad, order: Quad, size: int = 4) -> Quad:
    """Return the strides of a tensor without gaps whose dimensions lie in memory in an order, innermost first."""
    nb, stride = [0, 0, 0, 0], size
    for dim in order:
        nb[dim] = stride
        stride *= ne[dim]
    return (nb[0], nb[1], nb[2], nb[3])


def _strides_agree(tensor: Tensor, want: Quad) -> bool:
    return all(n <= 1 or have == need for n, have, need in zip(tensor.ne, tensor.nb, want, strict=True))


def _axes(node: Node) -> tuple[Axis, Axis]:
    kernel, images = node.source(0), node.source(1)
    width, height = (axis(node, number, images.ne[number], kernel.ne[number]) for number in (0, 1))
    return height, width


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute the formula tap by tap, some channels of an image at a time, sums in float64."""
    kernel, images, dst = node.source(0).array[:, 0], node.source(1).array, node.dst.array
    height, width = _axes(node)
    results = np.empty(dst.shape, np.float32)
    step = rows_per_slab(8 * height.outputs * width.outputs)
    for n, first in product(range(len(dst)), range(0, dst.shape[1], step)):
        part = slice(first, first + step)
        results[n, part] = _filter(images[n, part], kernel[part].astype(np.float64), height, width)
    dst[...] = results


def _filter(image: Array, kernel: Array, height: Axis, width: Axis) -> Array:
    """Return the sums over the taps of each channel, float64 of shape (channels, output height, output width)."""
    total = np.zeros((len(image), height.outputs, width.outputs))
    for kh, kw in np.ndindex(height.kernel, width.kernel):
        (of_row, row), (of_column, column) = height.span(kh, 0, height.outputs), width.span(kw, 0, width.outputs)
        total[:, of_row, of_column] += kernel[:, kh, kw, None, None] * image[:, row, column]
    return total


def cost(node: Node) -> Cost:
    """Return the cost: one channel at a time as float64, tap by tap."""
    taps, planes = node.source(0).ne[0] * node.source(0).ne[1], node.dst.ne[2] * node.dst.ne[3]
    plane = node.dst.ne[0] * node.dst.ne[1]
    return Cost(4 * node.dst.nelements + 24 * plane, elements(node) + taps * (planes * plane + planes * CALL))


OP = Op(
    name="CONV_2D_DW",
    sources=(
        Source("kernel", ("F32",), "ne = (KW, KH, 1, C)"),
        Source("images", ("F32",), "ne = (IW, IH, C, N)"),
    ),
    types=("F32",),
    params=params(2),
    shape=shape,
    oracle=oracle,
    tolerance=SUM_OF_PRODUCTS,
    cost=cost,
    later=(later("CONV_2D_DW.f16", takes={0: ("F16",)}),),
)
