"""CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel to the output, s0 elements after the previous one.

    dst[l*s0 + k, co] = sum over all such l, k and over ci of src0[k, co, ci] * src1[l, ci]

src0: the kernel, F32 or F16, ne = (K, Cout, Cin), dense rows. src1: F32, ne = (L, Cin), dense rows. dst: F32, contiguous, ne =
((L - 1)*s0 + K, Cout). What no copy reaches (s0 > K) is 0. With an F16 kernel src1's elements are rounded to F16 first (above
65504: infinite), by definition. p0 must be 0 and d0 1, the only values that upstream supports.

Source: ggml_conv_transpose_1d in ggml.c; ggml_compute_forward_conv_transpose_1d_f32, _f16_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.convolution import F16_SUM_OF_PRODUCTS
from ggml_rpc_ref.ops.shared.layout import require_dense_rows


def shape(node: Node) -> None:
    """Refuse unequal channels, further dimensions, a stride below 1, a result of other dimensions."""
    kernel, x, dst, stride = node.source(0), node.source(1), node.dst, node.i32("s0")
    node.require(kernel.ne[3] == 1, "a kernel of three dimensions", kernel.ne, at=kernel)
    node.require(x.ne[2:] == (1, 1), "a src1 of two dimensions", x.ne, at=x)
    node.require(kernel.ne[2] == x.ne[1], f"{x.ne[1]} input channels in the kernel as in src1", kernel.ne[2], at=kernel)
    require_dense_rows(node, kernel, x)
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
    # with an F16 kernel upstream rounds src1 to F16 in its work buffer (ggml_compute_forward_conv_transpose_1d_f16_f32)
    x = x.astype(kernel.dtype).astype(np.float64)
    total = np.zeros(dst.shape)
    for tap in range(kernel.shape[2] if x.shape[1] else 0):
        total[:, tap : tap + span : stride] += kernel[:, :, tap].T.astype(np.float64) @ x
    dst[...] = total


def cost(node: Node) -> Cost:
    """Return the cost: everything as float64 at once, tap by tap."""
    kernel, x = node.source(0), node.source(1)
    product = kernel.ne[1] * x.ne[0]
    taps = kernel.ne[0] * (CALL + product + product * x.ne[1] // PRODUCTS)
    return Cost(8 * node.dst.nelements + 16 * x.nelements + 16 * product + 16 * kernel.ne[1] * x.ne[1], elements(node) + taps)


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
    tolerance=F16_SUM_OF_PRODUCTS,
    cost=cost,
)
