"""Inputs worth trying on IM2COL."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kernel: tuple[int, ...],
    image: tuple[int, ...],
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    d: tuple[int, int] = (1, 1),
    *,
    flat: bool = False,
    types: str = "F32 F32 F32",
    nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel and an image; types are those of kernel, image and result."""
    kernel_type, image_type, dst_type = types.split()
    k, i = Operand(kernel_type, kernel).quad, Operand(image_type, image).quad
    width, height = Axis(i[0], k[0], s[0], p[0], d[0]).outputs, 1 if flat else Axis(i[1], k[1], s[1], p[1], d[1]).outputs
    ne = (k[0] * k[1], width, i[2]) if flat else (k[0] * k[1] * k[2], width, height, i[3])
    values = {"s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1], "d0": d[0], "d1": d[1], "is_2D": int(not flat)}
    return Case(name, Operand(dst_type, ne), (Operand(kernel_type, kernel), Operand(image_type, image, nb, fill)), dict(values))


def cases() -> Iterator[Case]:
    """One and two dimensions, strides, paddings, dilations, types, many channels and images, channels apart, edges of a window."""
    yield _case("plain", (3, 3, 3, 2), (10, 11, 3, 2))
    yield _case("padded", (3, 2, 5, 1), (7, 9, 5, 1), p=(1, 2))
    yield _case("strided", (3, 3, 2, 1), (13, 11, 2, 3), s=(2, 3), p=(1, 1))
    yield _case("dilated", (3, 2, 2, 1), (13, 11, 2, 1), d=(2, 3))
    yield _case("everything", (3, 5, 3, 4), (20, 17, 3, 2), s=(3, 2), p=(4, 3), d=(2, 2))
    yield _case("padding-beyond-the-image", (2, 2, 1, 1), (2, 2, 1, 1), p=(3, 5))
    yield _case("kernel-larger-than-the-image", (7, 5, 2, 1), (3, 2, 2, 1), p=(3, 3))
    yield _case("a-single-output", (4, 4, 3, 1), (4, 4, 3, 1))
    yield _case("one-by-one", (1, 1, 17, 1), (5, 3, 17, 1))
    yield _case("crop", (2, 2, 1, 1), (9, 8, 1, 1), p=(-2, -1))
    yield _case("dilation-zero", (3, 3, 1, 1), (4, 5, 1, 1), d=(0, 0))
    yield _case("many-channels", (3, 3, 129, 1), (4, 4, 129, 2), p=(1, 1))
    for types in ("F16 F32 F32", "F16 F32 F16", "F16 F16 F16", "BF16 F32 F32", "Q4_0 F32 F32"):
        kernel = (32, 2, 3, 1) if types.startswith("Q") else (3, 2, 3, 1)
        case = _case(f"types-{types.lower().replace(' ', '-')}", kernel, (34, 5, 3, 2), types=types)
        yield from since("IM2COL.f16", [case]) if types == "F16 F16 F16" else [case]
    yield _case("special", (3, 2, 3, 1), (9, 8, 3, 1), p=(1, 1), fill="special")
    yield _case("special-f16", (3, 2, 3, 1), (9, 8, 3, 1), p=(1, 1), types="F16 F32 F16", fill="special")
    yield _case("channels-apart", (3, 2, 3, 1), (7, 5, 3, 2), nb=(4, 28, 192, 640))
    yield _case("channels-permuted", (3, 2, 3, 1), (7, 5, 3, 2), nb=(4, 28, 280, 140))
    flat = {"s": (1, 0), "p": (0, 0), "d": (1, 0), "flat": True}
    yield _case("flat", (3, 4, 5), (11, 4, 3), **flat)  # type: ignore[arg-type]
    yield _case("flat-padded-strided-dilated", (3, 4, 5), (23, 4, 2), s=(2, 0), p=(3, 0), d=(3, 0), flat=True)
    yield _case("flat-f16", (4, 7, 2), (31, 7, 2), s=(1, 0), p=(2, 0), d=(1, 0), flat=True, types="F16 F32 F16")
    yield _case("flat-with-a-second-padding", (3, 4, 5), (11, 4, 3), p=(0, 1), d=(1, 0), flat=True)
    yield _case("flat-rows-apart", (3, 4, 5), (11, 4, 3), nb=(4, 64, 300, 1000), **flat)  # type: ignore[arg-type]
    yield _case("one-element", (1, 1, 1, 1), (1, 1, 1, 1))
    yield from since("IM2COL.kernel", _later())


def _later() -> Iterator[Case]:
    for types in ("F32 F32 F16", "BF16 F16 F16", "Q8_0 F32 F16"):
        kernel = (32, 2, 3, 1) if types.startswith("Q") else (3, 2, 3, 1)
        yield _case(f"types-{types.lower().replace(' ', '-')}", kernel, (34, 5, 3, 2), types=types)
