"""Inputs worth trying on CONV_TRANSPOSE_2D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since, until
from ggml_rpc_ref.ops.cases.shared.convolution import BY_KERNEL, NON_FINITE
from ggml_rpc_ref.tensor import Quad


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
    """Kernels of F16, which every version takes, and of F32."""
    for case in _cases():
        new = case.src[0] is not None and case.src[0].dtype == "F32" and not case.since
        yield from since("CONV_TRANSPOSE_2D.f32", [case]) if new else [case]


def _cases() -> Iterator[Case]:
    """Strides below, at and above the kernel's size, channel counts around vector widths, types, gaps, several images."""
    for kernel_type in ("F32", "F16"):
        tail = kernel_type.lower()
        for stride in (1, 2, 4):
            yield _case(f"stride-{stride}-{tail}", (3, 2, 2, 4), (5, 6), stride, kernel_type=kernel_type)
        for channels in (1, 7, 67, 257):
            yield _case(f"{channels}-channels-{tail}", (2, 3, 3, channels), (4, 3), 2, kernel_type=kernel_type)
        yield _case(f"one-tap-{tail}", (1, 1, 5, 3), (4, 3), kernel_type=kernel_type)
        yield _case(f"one-pixel-{tail}", (6, 5, 2, 3), (1, 1), 4, kernel_type=kernel_type)
        first = _case(f"two-images-{tail}", (3, 2, 2, 3), (4, 5), 2, 2, kernel_type=kernel_type)
        yield from until("CONV_TRANSPOSE_2D.images", [first])
        yield _case(f"special-{tail}", (2, 2, 3, 2), (7, 5), fill=NON_FINITE, kernel_type=kernel_type)
    yield _case("beyond-f16", (2, 2, 1, 3), (4, 3), kernel_type="F16", fill="normal:1e5")
    yield _case("gaps", (3, 2, 2, 4), (5, 3), 2, nbs=((4, 12, 32, 100), (4, 24, 96, 400)))
    yield _case("kernel-permuted", (3, 2, 2, 4), (5, 3), 2, nbs=((4, 12, 96, 24), None))
    yield _case("one-element", (1, 1, 1, 2), (1, 1), kernel_type="F16")
    for kernel_type in ("F32", "F16"):
        every = _case(f"all-of-three-images-{kernel_type}".lower(), (3, 2, 2, 3), (4, 5), 2, 3, kernel_type=kernel_type)
        yield from since("CONV_TRANSPOSE_2D.images", [every])
