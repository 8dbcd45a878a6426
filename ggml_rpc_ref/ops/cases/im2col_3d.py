"""Inputs worth trying on IM2COL_3D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad

Triple = tuple[int, int, int]


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
    yield _case("channels-left-over", (3, 3, 3, 3), (6, 5, 4, 5), 2)
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
    yield from since("IM2COL_3D.kernel", _later())


def _later() -> Iterator[Case]:
    for types in ("F32 F16", "BF16 F16"):
        yield _case(f"types-{types.lower().replace(' ', '-')}", (3, 2, 2, 2), (5, 4, 3, 4), 2, p=(1, 0, 1), types=types)
