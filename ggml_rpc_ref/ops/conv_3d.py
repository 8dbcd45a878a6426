"""CONV_3D: convolution of volumes with a bank of kernels.

    dst[ow, oh, od, n*OC + oc] = sum over kw, kh, kd, ic of
        src0[kw, kh, kd, oc*IC + ic] * src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, od*s2 + kd*d2 - p2, n*IC + ic]

A tap on padding counts as 0. src0: the kernel, F32 or F16, contiguous, ne = (KW, KH, KD, IC*OC). src1: F32 volumes, ne = (IW,
IH, ID, IC*N), lying anywhere. dst: F32, ne = (OW, OH, OD, OC*N), lying anywhere; OW, OH and OD are (I + 2p - d(K - 1) - 1) / s
+ 1 with a division that truncates towards 0. The parameters c, n, oc are IC, N, OC, at least 1. With an F16 kernel the volume's
elements are rounded to F16 first (above 65504: infinite), by definition.

Source: ggml_conv_3d_direct in ggml.c; ggml_compute_forward_conv_3d_impl in ggml-cpu/ops.cpp.
"""

from math import prod

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.convolution import F16_SUM_OF_PRODUCTS, convolution_cost, convolve
from ggml_rpc_ref.ops.shared.sliding_window import Axes, axis, params


def shape(node: Node) -> None:
    """Refuse channel counts that do not multiply out, a kernel with gaps, a result of other dimensions."""
    kernel, volumes, dst = node.source(0), node.source(1), node.dst
    channels, count, outputs = (node.i32(name) for name in ("c", "n", "oc"))
    node.require(min(channels, count, outputs) >= 1, "c, n and oc >= 1", (channels, count, outputs))
    node.require(kernel.is_contiguous, "a contiguous kernel", kernel.nb, at=kernel)
    node.require(kernel.ne[3] == channels * outputs, f"src0.ne[3] == {channels} * {outputs}", kernel.ne[3], at=kernel)
    node.require(volumes.ne[3] == channels * count, f"src1.ne[3] == {channels} * {count}", volumes.ne[3], at=volumes)
    depth, height, width = _axes(node)
    ne = (width.outputs, height.outputs, depth.outputs, outputs * count)
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)


def _axes(node: Node) -> Axes:
    kernel, volumes = node.source(0), node.source(1)
    width, height, depth = (axis(node, number, volumes.ne[number], kernel.ne[number]) for number in range(3))
    return depth, height, width


def oracle(node: Node) -> None:
    """Compute the formula, sums in float64."""
    kernel, volumes, dst = (tensor.array for tensor in (node.source(0), node.source(1), node.dst))
    channels, count, outputs = (node.i32(name) for name in ("c", "n", "oc"))
    convolve(
        volumes.reshape(count, channels, *volumes.shape[1:]),
        kernel.reshape(outputs, channels * prod(kernel.shape[1:])),
        _axes(node),
        dst.reshape(count, outputs, *dst.shape[1:]),
    )


def cost(node: Node) -> Cost:
    """Return the cost: a row of windows at a time as float64, and a gather for each tap."""
    return convolution_cost(node, _axes(node), node.i32("c"))


OP = Op(
    name="CONV_3D",
    sources=(
        Source("kernel", ("F32", "F16"), "ne = (KW, KH, KD, IC*OC)"),
        Source("volumes", ("F32",), "ne = (IW, IH, ID, IC*N)"),
    ),
    types=("F32",),
    params=(
        *params(3),
        Param("c", "i32", 9, "channels of a volume, IC"),
        Param("n", "i32", 10, "volumes, N"),
        Param("oc", "i32", 11, "outputs, OC"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=F16_SUM_OF_PRODUCTS,
    cost=cost,
)
