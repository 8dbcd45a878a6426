"""CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel to the output, `stride` further on than its neighbour.

    dst[x*stride + kw, y*stride + kh, co, 0] = sum over all such x, kw, y, kh and over ci of
        src0[kw, kh, co, ci] * src1[x, y, ci, 0]
    dst[.., .., .., n] = 0 for n > 0

src0: the kernel, F32 or F16, ne = (KW, KH, Cout, Cin), planes without gaps. src1: F32 images, ne = (W, H, Cin, N), elements of
a row neighbours. dst: F32, contiguous, ne = ((W - 1)*stride + KW, (H - 1)*stride + KH, Cout, N). Pixels that no copy reaches
are 0. Only the first image is computed and the others' results are 0, for that is what upstream does with what its own
constructor makes. With an F16 kernel the image's elements are rounded to F16 first (above 65504: infinite), by definition.

Source: ggml_conv_transpose_2d_p0 in ggml.c; ggml_compute_forward_conv_transpose_2d_impl in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.conv_2d import BY_KERNEL, F16_SUM_OF_PRODUCTS, ODD_VALUES
from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse unequal channels, a kernel whose planes have gaps, a stride below 1, a result of other dimensions."""
    kernel, images, dst, stride = node.source(0), node.source(1), node.dst, node.i32("stride")
    node.require(kernel.ne[3] == images.ne[2], f"{images.ne[2]} input channels in the kernel", kernel.ne[3])
    node.require(
        kernel.nb[0] == kernel.dtype.size and images.nb[0] == 4, "elements of a row to be neighbours", (kernel.nb, images.nb)
    )
    node.require(kernel.ne[1] <= 1 or kernel.nb[1] == kernel.ne[0] * kernel.nb[0], "kernel planes without gaps", kernel.nb[1])
    node.require(stride >= 1, "stride >= 1", stride)
    width, height = ((images.ne[a] - 1) * stride + kernel.ne[a] for a in (0, 1))
    ne = (width, height, kernel.ne[2], images.ne[3])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add tap by tap for the first image, sums in float64."""
    stride, kernel, images, dst = node.i32("stride"), node.source(0).array, node.source(1).array, node.dst.array
    if dst.size == 0:
        return
    image = images[0].astype(kernel.dtype).astype(np.float64)
    total = np.zeros(dst.shape[1:])
    spans = [(n - 1) * stride + 1 for n in image.shape[1:]]
    for kh, kw in np.ndindex(kernel.shape[2:]) if image.size else ():
        copies = np.tensordot(kernel[:, :, kh, kw].astype(np.float64), image, (0, 0))
        total[:, kh : kh + spans[0] : stride, kw : kw + spans[1] : stride] += copies
    dst[...] = 0
    dst[0] = total


def _case(
    name: str,
    kernel: Quad,
    image: tuple[int, int],
    stride: int = 1,
    images: int = 1,
    *,
    kernel_type: str = "F32",
    nbs: tuple[Quad | None, Quad | None] = (None, None),
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel and images of a size; nbs are their strides."""
    sources = (Operand(kernel_type, kernel, nbs[0]), Operand("F32", (*image, kernel[3], images), nbs[1], fill))
    width, height = ((image[a] - 1) * stride + kernel[a] for a in (0, 1))
    dst = Operand("F32", (width, height, kernel[2], images))
    return Case(name, dst, sources, {"stride": stride}, BY_KERNEL[kernel_type])


def cases() -> Iterator[Case]:
    """Strides below, at and above the kernel's size, channel counts around vector widths, types, gaps, several images."""
    for kernel_type in ("F32", "F16"):
        tail = kernel_type.lower()
        for stride in (1, 2, 4):
            yield _case(f"stride-{stride}-{tail}", (3, 2, 2, 4), (5, 6), stride, kernel_type=kernel_type)
        for channels in (1, 7, 67, 257):
            yield _case(f"{channels}-channels-{tail}", (2, 3, 3, channels), (4, 3), 2, kernel_type=kernel_type)
        yield _case(f"one-tap-{tail}", (1, 1, 5, 3), (4, 3), kernel_type=kernel_type)
        yield _case(f"one-pixel-{tail}", (6, 5, 2, 3), (1, 1), 4, kernel_type=kernel_type)
        yield _case(f"two-images-{tail}", (3, 2, 2, 3), (4, 5), 2, 2, kernel_type=kernel_type)
        yield _case(f"special-{tail}", (2, 2, 3, 2), (7, 5), fill=ODD_VALUES, kernel_type=kernel_type)
    yield _case("beyond-f16", (2, 2, 1, 3), (4, 3), kernel_type="F16", fill="normal:1e5")
    yield _case("gaps", (3, 2, 2, 4), (5, 3), 2, nbs=((4, 12, 32, 100), (4, 24, 96, 400)))
    yield _case("kernel-permuted", (3, 2, 2, 4), (5, 3), 2, nbs=((4, 12, 96, 24), None))


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
    cases=cases,
    tolerance=F16_SUM_OF_PRODUCTS,
)
