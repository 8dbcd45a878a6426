"""IM2COL: lay the window of every output of a convolution out as a row, so that the convolution becomes a matrix product.

    dst[ic*KH*KW + kh*KW + kw, ow, oh, n] = src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, ic, n], and 0 on padding

With is_2D = 1: src0 is the kernel, ne = (KW, KH, IC, OC); src1 the image, ne = (IW, IH, IC, N); dst ne = (IC*KH*KW, OW, OH, N).
With any other is_2D (one dimension): src0 ne = (KW, IC, OC), src1 ne = (IW, IC, N), dst ne = (IC*KW, OW, N); s1 and d1 are not
read, and a p1 other than 0 puts every window on padding. OW and OH are (I + 2p - d(K - 1) - 1) / s + 1 with a division that
truncates towards 0, at least 1.

src0 is read for its dimensions only. dst F32 takes an F32 image and a kernel of any type; dst F16 an F32 or F16 image and an
F16 kernel. The elements of src1's image planes must be without gaps (nb[1] = IW elements where IH > 1): upstream reads them so
whatever nb[1] says. Channels and images may lie anywhere. dst is contiguous. F32 is rounded to F16 where dst is F16; NaN,
infinities and -0 are moved as they are. An image of no elements gives zeros.

Source: ggml_im2col in ggml.c; ggml_compute_forward_im2col_f32, _f16 in ggml-cpu/ops.cpp.
"""

from math import prod

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import ANY, Node, Op, Param, Source, before, later
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.sliding_window import POINT, Axes, axis, params, write_rows
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse a result of other dimensions or with gaps, unequal channels, types that do not go together, planes with gaps."""
    kernel, image, dst = node.source(0), node.source(1), node.dst
    _check_types(node)
    if node.i32("is_2D") == 1:
        node.require(kernel.ne[2] == image.ne[2], f"{image.ne[2]} channels in the kernel as in src1", kernel.ne[2], at=kernel)
        node.require(
            image.ne[1] <= 1 or image.nb[1] == image.ne[0] * image.nb[0], "image planes without gaps", image.nb[1], at=image
        )
    else:
        node.require(kernel.ne[1] == image.ne[1], f"{image.ne[1]} channels in the kernel as in src1", kernel.ne[1], at=kernel)
        node.require(image.ne[3] == 1, "src1.ne[3] == 1 in one dimension", image.ne[3], at=image)
    axes = _axes(node)
    node.require(min(a.outputs for a in axes) >= 1, "an image at least as large as the kernel", [a.outputs for a in axes])
    node.require(dst.ne == _result_ne(node, axes), f"ne {_result_ne(node, axes)}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def _check_types(node: Node) -> None:
    image, dst = node.source(1), node.dst
    if dst.dtype.name == "F32":
        node.require(image.dtype.name == "F32", "an F32 image for an F32 result", image.dtype.name, at=image)
    require_dense_rows(node, image)


def shape_with_f16_kernel(node: Node) -> None:
    """Refuse what `shape` does, and an F16 result with another kernel than F16."""
    kernel = node.source(0)
    if node.dst.dtype.name == "F16":
        node.require(kernel.dtype.name == "F16", "an F16 kernel for an F16 result", kernel.dtype.name, at=kernel)
        require_dense_rows(node, kernel)
    shape(node)


def _axes(node: Node) -> Axes:
    kernel, image = node.source(0), node.source(1)
    height = axis(node, 1, image.ne[1], kernel.ne[1]) if node.i32("is_2D") == 1 else POINT
    return POINT, height, axis(node, 0, image.ne[0], kernel.ne[0])


def _result_ne(node: Node, axes: Axes) -> Quad:
    kernel, image = node.source(0), node.source(1)
    _, height, width = axes
    if node.i32("is_2D") == 1:
        return (kernel.ne[0] * kernel.ne[1] * kernel.ne[2], width.outputs, height.outputs, image.ne[3])
    return (kernel.ne[0] * kernel.ne[1], width.outputs, image.ne[2], 1)


def oracle(node: Node) -> None:
    """Move the elements under each window into its row."""
    pixels = node.source(1).array
    flat = node.i32("is_2D") != 1
    # in one dimension upstream's iih is -p1 throughout, outside of an IH of 1
    if flat and node.i32("p1"):
        node.dst.array[...] = 0
        return
    images = pixels[0][:, :, None, None] if flat else pixels[:, :, None]  # to (n, channels, depth, height, width)
    write_rows(node.dst, images, _axes(node))


def cost(node: Node) -> Cost:
    """Return the cost: a row of windows at a time, gathered tap by tap."""
    taps = prod(axis.kernel for axis in _axes(node))
    blocks = 1 + node.dst.ne[2] * node.dst.ne[3]
    return Cost(8 * node.dst.ne[0] * node.dst.ne[1], elements(node) + taps * blocks * CALL)


OP = Op(
    name="IM2COL",
    sources=(
        Source("kernel", ANY, "ne = (KW, KH, IC, OC), or (KW, IC, OC); only its dimensions count"),
        Source("image", ("F32", "F16"), "ne = (IW, IH, IC, N), or (IW, IC, N)"),
    ),
    types=("F32", "F16"),
    params=(*params(2), Param("is_2D", "i32", 6, "1: two dimensions; else one")),
    shape=shape_with_f16_kernel,
    oracle=oracle,
    tolerance=EXACT,
    unread=(0,),
    cost=cost,
    later=(later("IM2COL.kernel", shape=shape),),
    earlier=(before("IM2COL.f16", without={1: ("F16",)}),),
)
