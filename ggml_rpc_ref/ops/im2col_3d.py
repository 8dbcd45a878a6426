"""IM2COL_3D: lay the window of every output of a volume's convolution out as a row.

    dst[((ic*KD + kd)*KH + kh)*KW + kw, ow, oh, n*OD + od]
        = src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, od*s2 + kd*d2 - p2, n*IC + ic], and 0 on padding

src0: the kernel, ne = (KW, KH, KD, OC*IC); it is read for its dimensions only. src1: F32 volumes, ne = (IW, IH, ID, N*IC),
dense rows. dst: F32 (kernel of any type) or F16 (kernel F16), contiguous, ne = (IC*KD*KH*KW, OW, OH, N*OD). OW, OH and OD are
(I + 2p - d(K - 1) - 1) / s + 1 with a division that truncates towards 0, at least 1. Channels that are left over, fewer than IC,
are not read. NaN, infinities and -0 are moved as they are; F16 is rounded.

Source: ggml_im2col_3d in ggml.c; ggml_compute_forward_im2col_3d_f32, _f16 in ggml-cpu/ops.cpp.
"""

from math import prod

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import ANY, Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.sliding_window import Axes, axis, params, write_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse a result of other dimensions or with gaps, fewer channels than a volume has."""
    kernel, volume, dst, channels = node.source(0), node.source(1), node.dst, node.i32("IC")
    require_dense_rows(node, volume)
    node.require(1 <= channels <= volume.ne[3], f"IC from 1 to src1.ne[3] = {volume.ne[3]}", channels)
    axes = _axes(node)
    depth, height, width = (a.outputs for a in axes)
    node.require(min(depth, height, width) >= 1, "volumes at least as large as the kernel", (width, height, depth))
    ne = (kernel.ne[0] * kernel.ne[1] * kernel.ne[2] * channels, width, height, depth * (volume.ne[3] // channels))
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def shape_with_f16_kernel(node: Node) -> None:
    """Refuse what `shape` does, and an F16 result with another kernel than F16."""
    kernel = node.source(0)
    if node.dst.dtype.name == "F16":
        node.require(kernel.dtype.name == "F16", "an F16 kernel for an F16 result", kernel.dtype.name, at=kernel)
    shape(node)


def _axes(node: Node) -> Axes:
    kernel, volume = node.source(0), node.source(1)
    width, height, depth = (axis(node, number, volume.ne[number], kernel.ne[number]) for number in range(3))
    return depth, height, width


def oracle(node: Node) -> None:
    """Move the elements under each window into its row."""
    pixels, channels = node.source(1).array, node.i32("IC")
    volumes = len(pixels) // channels
    write_rows(node.dst, pixels[: volumes * channels].reshape(volumes, channels, *pixels.shape[1:]), _axes(node))


def cost(node: Node) -> Cost:
    """Return the cost: a row of windows at a time, gathered tap by tap."""
    taps = prod(axis.kernel for axis in _axes(node))
    blocks = 1 + node.dst.ne[2] * node.dst.ne[3]
    return Cost(8 * node.dst.ne[0] * node.dst.ne[1], elements(node) + taps * blocks * CALL)


OP = Op(
    name="IM2COL_3D",
    sources=(
        Source("kernel", ANY, "ne = (KW, KH, KD, OC*IC); only its dimensions count"),
        Source("volumes", ("F32",), "ne = (IW, IH, ID, N*IC)"),
    ),
    types=("F32", "F16"),
    params=(*params(3), Param("IC", "i32", 9, "channels of a volume")),
    shape=shape_with_f16_kernel,
    oracle=oracle,
    tolerance=EXACT,
    unread=(0,),
    cost=cost,
    later=(later("IM2COL_3D.kernel", shape=shape),),
)
