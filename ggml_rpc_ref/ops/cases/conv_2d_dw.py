"""Inputs worth trying on CONV_2D_DW."""

from collections.abc import Iterator
from dataclasses import replace

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.cases.shared.convolution import NON_FINITE
from ggml_rpc_ref.ops.conv_2d_dw import CWHN, KERNEL_CWHN, packed_nb
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad


def _case(
    name: str,
    kernel: tuple[int, int],
    images: Quad,
    s: tuple[int, int] = (1, 1),
    p: tuple[int, int] = (0, 0),
    d: tuple[int, int] = (1, 1),
    *,
    channels_first: bool = False,
    fill: str = "normal",
    kernel_fill: str = "normal",
) -> Case:
    """Return the case of a kernel and images."""
    width, height = (Axis(images[a], kernel[a], s[a], p[a], d[a]).outputs for a in (0, 1))
    ne, kernel_ne = (width, height, images[2], images[3]), (*kernel, 1, images[2])
    operands = ((ne, CWHN, "normal"), (kernel_ne, KERNEL_CWHN, kernel_fill), (images, CWHN, fill))
    dst, weights, pixels = (
        Operand("F32", quad, packed_nb(quad, order) if channels_first else None, f) for quad, order, f in operands
    )
    values = {"s0": s[0], "s1": s[1], "p0": p[0], "p1": p[1], "d0": d[0], "d1": d[1]}
    return Case(name, dst, (weights, pixels), dict(values))


def cases() -> Iterator[Case]:
    """Both memory orders, strides, paddings, dilations, channel counts around vector widths, special values."""
    for first in (False, True):
        order = "cwhn" if first else "whcn"
        yield _case(f"plain-{order}", (3, 3), (10, 11, 3, 2), channels_first=first)
        yield _case(f"everything-{order}", (3, 5), (20, 17, 5, 2), (3, 2), (4, 3), (2, 2), channels_first=first)
        yield _case(f"padded-{order}", (3, 2), (7, 9, 17, 1), p=(1, 2), channels_first=first)
        yield _case(f"one-by-one-{order}", (1, 1), (5, 3, 33, 1), channels_first=first)
        yield _case(f"special-{order}", (2, 2), (9, 8, 3, 1), p=(1, 1), channels_first=first, fill=NON_FINITE)
        infinite = "values:inf,-inf,1,nan"
        yield _case(f"kernel-with-infinities-{order}", (3, 3), (4, 3, 2, 1), p=(2, 2), channels_first=first, kernel_fill=infinite)
        yield _case(f"crop-{order}", (2, 2), (9, 8, 2, 1), p=(-2, -1), channels_first=first)
        yield _case(f"kernel-larger-than-the-image-{order}", (5, 7), (3, 2, 2, 1), p=(2, 3), channels_first=first)
    yield _case("one-channel", (3, 3), (6, 5, 1, 2), p=(1, 1))
    yield _case("64-channels-cwhn", (3, 3), (4, 3, 64, 1), p=(1, 1), channels_first=True)
    # the stride of a dimension of length 1 may be any that is not larger than the columns'
    case = _case("kernel-of-one-plane-cwhn", (3, 2), (6, 5, 3, 1), channels_first=True)
    yield replace(case, src=(Operand("F32", (3, 2, 1, 3), (12, 36, 4, 4)), case.src[1]))
    yield from since("CONV_2D_DW.f16", _later())


def _later() -> Iterator[Case]:
    for first in (False, True):
        order = "cwhn" if first else "whcn"
        case = _case(f"f16-{order}", (3, 5), (20, 17, 5, 2), (3, 2), (4, 3), (2, 2), channels_first=first)
        yield replace(case, src=(_halved(case.src[0], first), case.src[1]))
        case = _case(f"f16-many-channels-{order}", (3, 3), (4, 3, 67, 1), p=(1, 1), channels_first=first)
        yield replace(case, src=(_halved(case.src[0], first), case.src[1]))


def _halved(kernel: Operand | None, channels_first: bool) -> Operand:
    assert kernel is not None
    return Operand("F16", kernel.ne, packed_nb(kernel.quad, KERNEL_CWHN, 2) if channels_first else None)
