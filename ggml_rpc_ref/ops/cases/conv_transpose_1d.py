"""Inputs worth trying on CONV_TRANSPOSE_1D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.convolution import BY_KERNEL, NON_FINITE
from ggml_rpc_ref.tensor import Quad


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
    yield _case("special", (2, 3, 2), 32, 1, fill=NON_FINITE)
