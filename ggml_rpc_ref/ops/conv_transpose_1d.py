"""CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel to the output, s0 further on than the one before.

    dst[l*s0 + k, co] = sum over all such l, k and over ci of src0[k, co, ci] * src1[l, ci]

src0: the kernel, F32 or F16, ne = (K, Cout, Cin), elements of a row neighbours. src1: F32, ne = (L, Cin), elements of a row
neighbours. dst: F32, contiguous, ne = ((L - 1)*s0 + K, Cout). What no copy reaches (s0 > K) is 0. With an F16 kernel src1's
elements are rounded to F16 first (above 65504: infinite), by definition. p0 and d0 must be 0 and 1: upstream knows no others.

Source: ggml_conv_transpose_1d in ggml.c; ggml_compute_forward_conv_transpose_1d_f32, _f16_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.conv_2d import BY_KERNEL, F16_SUM_OF_PRODUCTS, ODD_VALUES
from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse unequal channels, further dimensions, a stride below 1, a result of other dimensions."""
    kernel, x, dst, stride = node.source(0), node.source(1), node.dst, node.i32("s0")
    node.require(kernel.ne[3] == 1 and x.ne[2:] == (1, 1), "a kernel of three dimensions and a src1 of two", (kernel.ne, x.ne))
    node.require(kernel.ne[2] == x.ne[1], f"{x.ne[1]} input channels in the kernel", kernel.ne[2])
    node.require(kernel.nb[0] == kernel.dtype.size and x.nb[0] == 4, "elements of a row to be neighbours", (kernel.nb, x.nb))
    node.require((node.i32("p0"), node.i32("d0")) == (0, 1), "p0 == 0 and d0 == 1", (node.i32("p0"), node.i32("d0")))
    node.require(stride >= 1, "s0 >= 1", stride)
    ne = ((x.ne[0] - 1) * stride + kernel.ne[0], kernel.ne[1], 1, 1)
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add tap by tap, sums in float64."""
    stride, kernel, x, dst = node.i32("s0"), node.source(0).array[0], node.source(1).array[0, 0], node.dst.array[0, 0]
    span = (x.shape[1] - 1) * stride + 1
    x = x.astype(kernel.dtype).astype(np.float64)
    total = np.zeros(dst.shape)
    for tap in range(kernel.shape[2] if x.shape[1] else 0):
        total[:, tap : tap + span : stride] += kernel[:, :, tap].T.astype(np.float64) @ x
    dst[...] = total


def _case(
    name: str,
    kernel: tuple[int, int, int],
    length: int,
    stride: int = 1,
    *,
    kernel_type: str = "F32",
    nbs: tuple[Quad | None, Quad | None] = (None, None),
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel (K, Cout, Cin) and an input of a length; nbs are their strides."""
    sources = (Operand(kernel_type, kernel, nbs[0]), Operand("F32", (length, kernel[2]), nbs[1], fill))
    dst = Operand("F32", ((length - 1) * stride + kernel[0], kernel[1]))
    return Case(name, dst, sources, {"s0": stride, "p0": 0, "d0": 1}, BY_KERNEL[kernel_type])


def cases() -> Iterator[Case]:
    """Strides below, at and above the kernel's length, channel counts around vector widths, types, gaps, special values."""
    for stride in (1, 2, 3, 5):
        yield _case(f"stride-{stride}", (3, 2, 4), 7, stride)
    for channels in (1, 7, 32, 67, 257):
        yield _case(f"{channels}-channels", (4, 3, channels), 9, 2)
        yield _case(f"{channels}-channels-f16", (4, 3, channels), 9, 2, kernel_type="F16")
    yield _case("one-tap", (1, 5, 3), 4, 1)
    yield _case("one-element", (6, 2, 3), 1, 4)
    yield _case("long", (16, 1, 2), 131, 8)
    yield _case("beyond-f16", (2, 2, 3), 5, 1, kernel_type="F16", fill="normal:1e5")
    yield _case("gaps", (3, 2, 4), 5, 2, nbs=((4, 20, 64, 256), (4, 28, 128, 128)))
    yield _case("gaps-f16", (3, 2, 4), 5, 2, kernel_type="F16", nbs=((2, 10, 32, 128), (4, 28, 128, 128)))
    yield _case("special", (2, 3, 2), 32, 1, fill=ODD_VALUES)


OP = Op(
    name="CONV_TRANSPOSE_1D",
    sources=(
        Source("kernel", ("F32", "F16"), "ne = (K, Cout, Cin)"),
        Source("x", ("F32",), "ne = (L, Cin)"),
    ),
    types=("F32",),
    params=(
        Param("s0", "i32", 0, "stride, at least 1"),
        Param("p0", "i32", 1, "padding, 0"),
        Param("d0", "i32", 2, "dilation, 1"),
    ),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=F16_SUM_OF_PRODUCTS,
)
