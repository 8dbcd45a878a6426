"""CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel to the output, `stride` pixels after its neighbour's.

    dst[x*stride + kw, y*stride + kh, co, 0] = sum over all such x, kw, y, kh and over ci of
        src0[kw, kh, co, ci] * src1[x, y, ci, 0]
    dst[.., .., .., n] = 0 for n > 0

src0: the kernel, F32 or F16, ne = (KW, KH, Cout, Cin), planes without gaps. src1: F32 images, ne = (W, H, Cin, N), dense rows.
dst: F32, contiguous, ne = ((W - 1)*stride + KW, (H - 1)*stride + KH, Cout, N). Pixels that no copy reaches are 0. Only the
first image is computed and the others' results are 0, as upstream does, although its own constructor makes such nodes. With an
F16 kernel the image's elements are rounded to F16 first (above 65504: infinite), by definition.

Source: ggml_conv_transpose_2d_p0 in ggml.c; ggml_compute_forward_conv_transpose_2d_impl in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before, later
from ggml_rpc_ref.ops.shared.convolution import F16_SUM_OF_PRODUCTS
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array


def shape(node: Node) -> None:
    """Refuse unequal channels, a kernel whose planes have gaps, a stride below 1, a result of other dimensions."""
    kernel, images, dst, stride = node.source(0), node.source(1), node.dst, node.i32("stride")
    node.require(kernel.ne[3] == images.ne[2], f"{images.ne[2]} input channels in the kernel as in src1", kernel.ne[3], at=kernel)
    require_dense_rows(node, kernel, images)
    node.require(
        kernel.ne[1] <= 1 or kernel.nb[1] == kernel.ne[0] * kernel.nb[0], "kernel planes without gaps", kernel.nb[1], at=kernel
    )
    node.require(stride >= 1, "stride >= 1", stride)
    width, height = ((images.ne[a] - 1) * stride + kernel.ne[a] for a in (0, 1))
    ne = (width, height, kernel.ne[2], images.ne[3])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def oracle(node: Node) -> None:
    """Compute the first image; the others' results are 0."""
    # upstream clears all of dst, then walks through one image: its loops have no i13
    _compute(node, 1)


def oracle_of_all(node: Node) -> None:
    """Compute every image."""
    _compute(node, node.source(1).ne[3])


@np.errstate(all="ignore")
def _compute(node: Node, count: int) -> None:
    """Add tap by tap for so many images, one after the other, sums in float64; write the results when all are there."""
    stride, kernel, images, dst = node.i32("stride"), node.source(0).array, node.source(1).array, node.dst.array
    if dst.size == 0:
        return
    results = np.zeros(dst.shape, np.float32)
    for n in range(count):
        results[n] = _spread(images[n].astype(kernel.dtype).astype(np.float64), kernel, stride, dst.shape[1:])
    dst[...] = results


def _spread(image: Array, kernel: Array, stride: int, shape: tuple[int, ...]) -> Array:
    """Return what the copies of the kernel add up to, float64."""
    total = np.zeros(shape)
    spans = [(n - 1) * stride + 1 for n in image.shape[1:]]
    for kh, kw in np.ndindex(kernel.shape[2:]) if image.size else ():
        checkpoint()
        copies = np.tensordot(kernel[:, :, kh, kw].astype(np.float64), image, (0, 0))
        total[:, kh : kh + spans[0] : stride, kw : kw + spans[1] : stride] += copies
    return total


def cost(node: Node) -> Cost:
    """Return the cost of the first image."""
    return _cost(node, 1)


def cost_of_all(node: Node) -> Cost:
    """Return the cost of all images."""
    return _cost(node, node.source(1).ne[3])


def _cost(node: Node, count: int) -> Cost:
    """Return the cost: an image as float64 at once, tap by tap."""
    kernel, images = node.source(0), node.source(1)
    width, height, channels, _ = images.ne
    product = kernel.ne[2] * width * height
    taps = count * kernel.ne[0] * kernel.ne[1] * (CALL + product + product * channels // PRODUCTS)
    own = 8 * node.dst.nelements + 16 * width * height * channels + 16 * product + 16 * kernel.ne[2] * channels
    return Cost(own, elements(node) + taps)


OP = Op(
    name="CONV_TRANSPOSE_2D",
    sources=(
        Source("kernel", ("F32", "F16"), "ne = (KW, KH, Cout, Cin)"),
        Source("images", ("F32",), "ne = (W, H, Cin, N)"),
    ),
    types=("F32",),
    params=(Param("stride", "i32", 0, "of both axes, at least 1"),),
    shape=shape,
    oracle=oracle,
    tolerance=F16_SUM_OF_PRODUCTS,
    cost=cost,
    later=(later("CONV_TRANSPOSE_2D.images", oracle=oracle_of_all, cost=cost_of_all),),
    earlier=(before("CONV_TRANSPOSE_2D.f32", without={0: ("F32",)}),),
)
