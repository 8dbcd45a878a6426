"""IM2COL_BACK: the gradient of an image from the gradient of its IM2COL: every pixel sums the gradients of its copies.

    dst[iw, ih, ic, n] = sum of src0[ic*KH*KW + kh*KW + kw, ow, oh, n]
                         over all taps and outputs with ow*s0 + kw*d0 - p0 = iw and oh*s1 + kh*d1 - p1 = ih

With is_2D = 1: src0 (gradient) ne = (IC*KH*KW, OW, OH, N), src1 (kernel) ne = (KW, KH, ..), dst ne = (IW, IH, IC, N). With any
other is_2D: src0 ne = (IC*KW, OW, N), src1 ne = (KW, ..), dst ne = (IW, IC, N); s1, p1, d1 not read. OW and OH may be anything:
the client chooses dst's dimensions, and windows that reach beyond them contribute nothing there.

All F32. src1 is read for its dimensions only. src0 is contiguous, dst's planes are without gaps (as IM2COL's image); its
channels and images may lie anywhere. Sums are in float32, taps in ascending order. A pixel that no window touches becomes 0.

Source: ggml_im2col_back in ggml.c; ggml_compute_forward_im2col_back_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.sliding_window import POINT, Axis, axis, params
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse a gradient whose rows are not the windows of so many channels, gaps in it or in dst's planes, shared bytes."""
    gradient, kernel, dst = node.source(0), node.source(1), node.dst
    node.require(gradient.is_contiguous, "a contiguous gradient", gradient.nb, at=gradient)
    require_dense_rows(node, dst)
    if node.i32("is_2D") == 1:
        taps, channels, images = kernel.ne[0] * kernel.ne[1], dst.ne[2], dst.ne[3]
        node.require(gradient.ne[3] == images, f"{images} images in the gradient", gradient.ne[3], at=gradient)
        node.require(dst.ne[1] <= 1 or dst.nb[1] == 4 * dst.ne[0], "planes without gaps", dst.nb[1])
    else:
        taps, channels, images = kernel.ne[0], dst.ne[1], dst.ne[2]
        node.require(gradient.ne[2:] == (images, 1), f"ne[2:] == ({images}, 1) in the gradient", gradient.ne, at=gradient)
        node.require(dst.ne[3] == 1, "ne[3] == 1 in one dimension", dst.ne[3])
    node.require(gradient.ne[0] == taps * channels, f"src0.ne[0] == {taps} * {channels}", gradient.ne[0], at=gradient)
    _axes(node)


def _axes(node: Node) -> tuple[Axis, Axis]:
    kernel, dst = node.source(1), node.dst
    height = axis(node, 1, dst.ne[1], kernel.ne[1]) if node.i32("is_2D") == 1 else POINT
    return height, axis(node, 0, dst.ne[0], kernel.ne[0])


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add up tap by tap: within one tap no two outputs cover the same pixel."""
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


def cost(node: Node) -> Cost:
    """Return the cost: the result once more, tap by tap."""
    height, width = _axes(node)
    return Cost(4 * node.dst.nelements, elements(node) + height.kernel * width.kernel * CALL)


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
    tolerance=EXACT,
    unread=(1,),
    cost=cost,
    later=(later("IM2COL_BACK.f16", takes={1: ("F16",)}),),
)
