"""IM2COL_3D: lay the window of every output of a volume's convolution out as a row.

    dst[((ic*KD + kd)*KH + kh)*KW + kw, ow, oh, n*OD + od]
        = src1[ow*s0 + kw*d0 - p0, oh*s1 + kh*d1 - p1, od*s2 + kd*d2 - p2, n*IC + ic], and 0 on padding

src0: the kernel, ne = (KW, KH, KD, OC*IC); it lends its dimensions only. src1: F32 volumes, ne = (IW, IH, ID, N*IC), elements
of a row neighbours, the rest anywhere. dst: F32 (kernel of any type) or F16 (kernel F16), contiguous, ne = (IC*KD*KH*KW, OW,
OH, N*OD). OW, OH and OD are (I + 2p - d(K - 1) - 1) / s + 1 with a division that truncates towards 0, at least 1. IC divides
src1.ne[3]. NaN, infinities and -0 are moved as they are; F16 is rounded.

Source: ggml_im2col_3d in ggml.c; ggml_compute_forward_im2col_3d_f32, _f16 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.im2col import write_rows
from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.sliding_window import Axes, Axis, axis, params
from ggml_rpc_ref.tensor import Quad

Triple = tuple[int, int, int]


def shape(node: Node) -> None:
    """Refuse a result of other dimensions or with gaps, channels that do not divide, an F16 result of another kernel."""
    kernel, volume, dst, channels = node.source(0), node.source(1), node.dst, node.i32("IC")
    if dst.dtype.name == "F16":
        node.require(kernel.dtype.name == "F16", "an F16 kernel for an F16 result", kernel.dtype.name)
    node.require(volume.nb[0] == 4, "src1.nb[0] == 4", volume.nb[0])
    node.require(channels >= 1 and volume.ne[3] % channels == 0, f"IC to divide src1.ne[3] = {volume.ne[3]}", channels)
    axes = _axes(node)
    depth, height, width = (a.outputs for a in axes)
    node.require(min(depth, height, width) >= 1, "volumes not too small for the kernel", (width, height, depth))
    ne = (kernel.ne[0] * kernel.ne[1] * kernel.ne[2] * channels, width, height, depth * (volume.ne[3] // channels))
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def _axes(node: Node) -> Axes:
    kernel, volume = node.source(0), node.source(1)
    width, height, depth = (axis(node, number, volume.ne[number], kernel.ne[number]) for number in range(3))
    return depth, height, width


def oracle(node: Node) -> None:
    """Move the elements under each window into its row."""
    pixels, channels = node.source(1).array, node.i32("IC")
    write_rows(node.dst, pixels.reshape(len(pixels) // channels, channels, *pixels.shape[1:]), _axes(node))


def _case(
    name: str,
    kernel: Quad,
    volume: Quad,
    channels: int,
    s: Triple = (1, 1, 1),
    p: Triple = (0, 0, 0),
    d: Triple = (1, 1, 1),
    *,
    types: str = "F32 F32",
    nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel and volumes; types are those of kernel and result."""
    kernel_type, dst_type = types.split()
    width, height, depth = (Axis(volume[a], kernel[a], s[a], p[a], d[a]).outputs for a in range(3))
    ne = (kernel[0] * kernel[1] * kernel[2] * channels, width, height, depth * (volume[3] // channels))
    values = {f"{kind}{a}": value for kind, triple in (("s", s), ("p", p), ("d", d)) for a, value in enumerate(triple)}
    sources = (Operand(kernel_type, kernel), Operand("F32", volume, nb, fill))
    return Case(name, Operand(dst_type, ne), sources, {**values, "IC": channels})


def cases() -> Iterator[Case]:
    """Strides, paddings, dilations, types, channels and volumes, views, edges of a window."""
    yield _case("plain", (3, 3, 3, 3), (6, 5, 4, 3), 3)
    yield _case("two-volumes", (2, 3, 2, 6), (6, 5, 4, 6), 3)
    yield _case("padded", (3, 2, 3, 2), (4, 5, 3, 2), 2, p=(1, 2, 1))
    yield _case("strided", (3, 2, 2, 1), (9, 8, 7, 2), 1, s=(2, 3, 2))
    yield _case("dilated", (3, 2, 2, 1), (9, 8, 7, 1), 1, d=(2, 3, 4))
    yield _case("everything", (3, 2, 4, 4), (9, 8, 7, 4), 2, s=(3, 2, 2), p=(4, 3, 2), d=(2, 2, 1))
    yield _case("padding-beyond-the-volume", (2, 2, 2, 1), (2, 2, 2, 1), 1, p=(3, 3, 4))
    yield _case("kernel-larger-than-the-volume", (5, 4, 6, 1), (2, 3, 2, 1), 1, p=(2, 2, 2))
    yield _case("crop", (2, 2, 1, 1), (9, 8, 7, 1), 1, p=(-2, -1, -3))
    yield _case("one-by-one", (1, 1, 1, 5), (5, 3, 2, 10), 5)
    for types in ("F16 F32", "F16 F16", "BF16 F32"):
        yield _case(f"types-{types.lower().replace(' ', '-')}", (3, 2, 2, 2), (5, 4, 3, 4), 2, p=(1, 0, 1), types=types)
    yield _case("special", (3, 2, 2, 1), (6, 5, 4, 1), 1, p=(1, 1, 1), fill="special")
    yield _case("special-f16", (3, 2, 2, 1), (6, 5, 4, 1), 1, p=(1, 1, 1), types="F16 F16", fill="special")
    yield _case("view", (3, 2, 2, 2), (5, 4, 3, 4), 2, nb=(4, 32, 192, 1024))
    yield _case("permuted", (3, 2, 2, 2), (5, 4, 3, 4), 2, nb=(4, 240, 80, 20))


OP = Op(
    name="IM2COL_3D",
    sources=(
        Source("kernel", ANY, "ne = (KW, KH, KD, OC*IC); only its dimensions count"),
        Source("volumes", ("F32",), "ne = (IW, IH, ID, N*IC)"),
    ),
    types=("F32", "F16"),
    params=(*params(3), Param("IC", "i32", 9, "channels of a volume")),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
