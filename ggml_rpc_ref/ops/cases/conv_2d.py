"""Inputs worth trying on CONV_2D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.convolution import BY_KERNEL, NON_FINITE
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kernel: Quad,
    images: Quad,
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    d: tuple[int, int] = (1, 1),
    *,
    kernel_type: str = "F32",
    nb: Quad | None = None,
    dst_nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return the case of a kernel and images."""
    width, height = (Axis(images[a], kernel[a], s[a], p[a], d[a]).outputs for a in (0, 1))
    values = {"s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1], "d0": d[0], "d1": d[1]}
    sources = (Operand(kernel_type, kernel), Operand("F32", images, nb, fill))
    dst = Operand("F32", (width, height, kernel[3], images[3]), dst_nb)
    return Case(name, dst, sources, dict(values), BY_KERNEL[kernel_type])


def cases() -> Iterator[Case]:
    """Strides, paddings, dilations, kernel types, channel and output counts, tensors lying anywhere, edges of a window."""
    for kernel_type in ("F32", "F16"):
        tail = kernel_type.lower()
        yield _case(f"plain-{tail}", (3, 3, 3, 4), (10, 11, 3, 2), kernel_type=kernel_type)
        yield _case(f"everything-{tail}", (3, 5, 3, 4), (20, 17, 3, 2), (3, 2), (4, 3), (2, 2), kernel_type=kernel_type)
        yield _case(f"one-by-one-{tail}", (1, 1, 67, 5), (5, 3, 67, 1), kernel_type=kernel_type)
        yield _case(f"many-channels-{tail}", (3, 3, 64, 17), (4, 4, 64, 1), p=(1, 1), kernel_type=kernel_type)
        yield _case(f"special-{tail}", (2, 2, 2, 3), (16, 15, 2, 1), p=(1, 1), kernel_type=kernel_type, fill=NON_FINITE)
        yield _case(f"beyond-f16-{tail}", (2, 2, 1, 1), (5, 4, 1, 1), kernel_type=kernel_type, fill="normal:1e5")
    yield _case("padded", (3, 2, 5, 7), (7, 9, 5, 1), p=(1, 2))
    yield _case("strided", (3, 3, 2, 2), (13, 11, 2, 3), (2, 3), (1, 1))
    yield _case("dilated", (3, 2, 2, 1), (13, 11, 2, 1), d=(2, 3))
    yield _case("padding-beyond-the-image", (2, 2, 1, 1), (2, 2, 1, 1), p=(3, 5))
    yield _case("kernel-larger-than-the-image", (7, 5, 2, 2), (3, 2, 2, 1), p=(3, 3))
    yield _case("a-single-output", (4, 4, 3, 2), (4, 4, 3, 1))
    yield _case("crop", (2, 2, 1, 1), (9, 8, 1, 1), p=(-2, -1))
    yield _case("images-apart", (3, 2, 3, 2), (7, 5, 3, 2), nb=(4, 32, 192, 640))
    yield _case("images-permuted", (3, 2, 3, 2), (7, 5, 3, 2), nb=(12, 84, 4, 420))
    yield _case("result-permuted", (3, 2, 3, 2), (7, 5, 3, 2), dst_nb=(8, 40, 4, 160))
    yield _case("one-element", (1, 1, 2, 1), (1, 1, 2, 1))
    for kernel_type in ("F32", "F16"):
        yield _case(f"one-weight-{kernel_type.lower()}", (1, 1, 1, 1), (5, 3, 1, 2), kernel_type=kernel_type)
