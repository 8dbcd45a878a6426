"""Inputs worth trying on CONV_3D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.convolution import BY_KERNEL, NON_FINITE
from ggml_rpc_ref.ops.shared.sliding_window import Axis
from ggml_rpc_ref.tensor import Quad

Triple = tuple[int, int, int]


def _case(
    name: str,
    kernel: Triple,
    volume: Triple,
    counts: Triple,
    s: Triple = (1, 1, 1),
    p: Triple = (0, 0, 0),
    d: Triple = (1, 1, 1),
    *,
    kernel_type: str = "F32",
    nb: Quad | None = None,
    dst_nb: Quad | None = None,
    fill: str = "normal",
) -> Case:
    """Return the case of kernels and volumes of some sizes; counts are (IC, N, OC)."""
    c, n, oc = counts
    width, height, depth = (Axis(volume[a], kernel[a], s[a], p[a], d[a]).outputs for a in range(3))
    values = {f"{kind}{a}": value for kind, triple in (("s", s), ("p", p), ("d", d)) for a, value in enumerate(triple)}
    sources = (Operand(kernel_type, (*kernel, c * oc)), Operand("F32", (*volume, c * n), nb, fill))
    dst = Operand("F32", (width, height, depth, oc * n), dst_nb)
    return Case(name, dst, sources, {**values, "c": c, "n": n, "oc": oc}, BY_KERNEL[kernel_type])


def cases() -> Iterator[Case]:
    """Strides, paddings, dilations, kernel types, counts, volumes and results lying anywhere, edges of a window."""
    for kernel_type in ("F32", "F16"):
        tail = kernel_type.lower()
        yield _case(f"plain-{tail}", (3, 3, 3), (6, 5, 4), (3, 2, 4), kernel_type=kernel_type)
        everything = ((3, 2, 4), (9, 8, 7), (2, 2, 3), (3, 2, 2), (4, 3, 2), (2, 2, 1))
        yield _case(f"everything-{tail}", *everything, kernel_type=kernel_type)
        yield _case(f"one-by-one-{tail}", (1, 1, 1), (5, 3, 2), (37, 1, 5), kernel_type=kernel_type)
        yield _case(f"many-channels-{tail}", (3, 2, 2), (4, 3, 3), (32, 1, 9), p=(1, 0, 1), kernel_type=kernel_type)
        yield _case(f"special-{tail}", (2, 2, 2), (8, 7, 5), (1, 1, 2), p=(1, 1, 1), kernel_type=kernel_type, fill=NON_FINITE)
    yield _case("padded", (3, 2, 3), (4, 5, 3), (2, 1, 3), p=(1, 2, 1))
    yield _case("strided", (3, 2, 2), (9, 8, 7), (1, 2, 1), (2, 3, 2))
    yield _case("dilated", (3, 2, 2), (9, 8, 7), (1, 1, 2), d=(2, 3, 4))
    yield _case("kernel-larger-than-the-volume", (5, 4, 6), (2, 3, 2), (1, 1, 1), p=(2, 2, 2))
    yield _case("volumes-apart", (3, 2, 2), (5, 4, 3), (2, 2, 2), nb=(4, 32, 192, 1024))
    yield _case("volumes-permuted", (3, 2, 2), (5, 4, 3), (2, 2, 2), nb=(4, 240, 80, 20))
    yield _case("result-permuted", (3, 2, 2), (5, 4, 3), (2, 2, 2), dst_nb=(4, 96, 48, 12))
    yield _case("one-element", (1, 1, 1), (1, 1, 1), (2, 1, 1))
    yield _case("one-weight", (1, 1, 1), (5, 3, 2), (1, 2, 1))
