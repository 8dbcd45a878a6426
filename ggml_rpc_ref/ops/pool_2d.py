"""POOL_2D: the largest or the mean of the elements under a window that slides over each plane.

    dst[ox, oy, c, n] = max or mean over kx < k0, ky < k1 of src0[ox*s0 - p0 + kx, oy*s1 - p1 + ky, c, n]

src0: F32 or F16, ne = (W, H, C, N), elements of a row neighbours, rows nb[1] apart within a plane, planes nb[2] apart
throughout, each behind the one before. dst: F32, contiguous, ne = (OW, OH, C, N). A window and a stride are at least 1; a
negative padding crops. The client says OW and OH: its constructor computes (W + 2p - k) / s + 1 in float32, cut to a whole
number, from a padding p that may be a fraction, of which op_params only keep the integer part. So OW lies between what p - 1
and p + 1 give, and is at least 1; likewise OH.

Elements outside of the plane are left out, but the mean always divides by k0 * k1. The largest begins at -FLT_MAX, which is
also the result of a window without elements or of -inf alone. NaN: an element replaces the largest so far unless it is smaller,
so a NaN stands only until the next element (rows first) replaces it. A src0 of no elements is refused (upstream leaves dst
unset).

Source: ggml_pool_2d in ggml.c; ggml_compute_forward_pool_2d in ggml-cpu/ops.cpp.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array, Tensor

MAX, MEAN = 0, 1

LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows lie along one axis.

    Attributes:
        size: elements of the input.
        outputs: windows.
        kernel: elements of a window.
        stride: from one window to the next.
        padding: how far the first one begins before the input.
    """

    size: int
    outputs: int
    kernel: int
    stride: int
    padding: int

    def first(self) -> Array:
        """Return the input index at which each window begins, which may lie outside."""
        return np.arange(self.outputs, dtype=np.int64) * self.stride - self.padding

    def counts(self) -> Array:
        """Return how many elements of the input each window covers."""
        first = self.first()
        return np.asarray(np.clip(first + self.kernel, 0, self.size) - np.clip(first, 0, self.size))

    def taps(self) -> list[tuple[Array, Array]]:
        """Return for each place in a window, in order, the outputs that have an element there, and the elements' indices.

        Places where no output has an element are left out, so that a window much larger than the input costs nothing.
        """
        first = self.first()
        low, high = np.maximum(0, -first)[::-1], np.minimum(self.kernel, self.size - first)[::-1]  # both ascend
        low, high = low[low < high], high[low < high]
        begins = np.flatnonzero(np.append(True, low[1:] > high[:-1])[: len(low)])
        ends = np.append(begins[1:], len(low))[: len(begins)] - 1
        places = (place for begin, end in zip(begins, ends, strict=True) for place in range(low[begin], high[end]))
        outputs = ((np.flatnonzero((first + place >= 0) & (first + place < self.size)), place) for place in places)
        return [(output, first[output] + place) for output, place in outputs]

    def fits(self) -> bool:
        """Whether the constructor can have computed this number of outputs (ggml_calc_pool_output_size), give or take a padding."""
        low, high = (
            (np.float32(self.size) + np.float32(2) * np.float32(p) - np.float32(self.kernel)) / np.float32(self.stride) + 1
            for p in (self.padding - 1, self.padding + 1)
        )
        return bool(self.outputs >= 1 and int(low) <= self.outputs <= int(high))


def shape(node: Node) -> None:
    """Refuse unknown kinds of pooling, windows of no size, other channels, too many outputs, rows or planes out of step."""
    x, dst = node.source(0), node.dst
    node.require(node.i32("op") in (MAX, MEAN), "op 0 (max) or 1 (mean)", node.i32("op"))
    node.require(dst.ne[2:] == x.ne[2:], f"ne[2:] {x.ne[2:]} as the source", dst.ne)
    for number in (0, 1):
        along = windows(node, number, x.ne[number], dst.ne[number])
        check_windows(node, along)
        node.require(along.fits(), "as many outputs as windows fit", along)
    node.require(node.i32("k0") * node.i32("k1") < 2**31, "k0 * k1 < 2^31", (node.i32("k0"), node.i32("k1")))
    _check_planes(node, x)
    node.require(x.nelements > 0 or dst.nelements == 0, "a source with elements", x.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def windows(node: Node, number: int, size: int, outputs: int) -> Windows:
    """Return the windows along the axis of that number."""
    return Windows(size, outputs, *(node.i32(f"{name}{number}") for name in "ksp"))


def check_windows(node: Node, along: Windows) -> None:
    """Refuse windows of no size, a stride below 1, positions beyond an int."""
    node.require(along.kernel >= 1, "a window of at least 1", along.kernel)
    node.require(along.stride >= 1, "a stride of at least 1", along.stride)
    last = along.outputs * along.stride + abs(along.padding) + along.kernel
    node.require(last < 2**31, "windows whose positions fit an int", last)


def _check_planes(node: Node, x: Tensor) -> None:
    """Refuse rows with gaps, and planes that are not evenly spaced one after the other."""
    require_dense_rows(node, x)
    node.require(x.ne[3] == 1 or x.nb[3] == x.ne[2] * x.nb[2], "planes evenly spaced", x.nb)
    plane = (x.ne[1] - 1) * x.nb[1] + x.ne[0] * x.nb[0]
    node.require(x.nelements == 0 or plane <= x.nb[2], "planes one after the other", x.nb)


def oracle(node: Node) -> None:
    """Pool each plane."""
    x, dst = node.source(0).values(), node.dst.array
    node.dst.store(pool(node.i32("op"), x, windows(node, 1, x.shape[2], dst.shape[2]), windows(node, 0, x.shape[3], dst.shape[3])))


@np.errstate(all="ignore")
def pool(kind: int, x: Array, rows: Windows, columns: Windows, divisor: Array | None = None) -> Array:
    """Return the largest or the mean over the windows of the last two axes, visiting elements row by row, in float32 as upstream.

    Args:
        kind: MAX or MEAN.
        x: float32 of shape (.., height, width).
        rows: windows along the height.
        columns: windows along the width.
        divisor: what the sum of each window is divided by; None: the window's full size.
    """
    result = np.full((*x.shape[:-2], rows.outputs, columns.outputs), LOWEST if kind == MAX else 0, np.float32)
    for (oy, y), (ox, column) in product(rows.taps(), columns.taps()):
        element, at = x[..., y[:, None], column], (..., oy[:, None], ox)
        result[at] = np.where(element < result[at], result[at], element) if kind == MAX else result[at] + element
    if kind == MEAN:
        result /= np.float32(rows.kernel * columns.kernel) if divisor is None else divisor.astype(np.float32)
    return result


PARAMS = (
    Param("op", "i32", 0, "0 max, 1 mean"),
    Param("k0", "i32", 1, "window width"),
    Param("k1", "i32", 2, "window height"),
    Param("s0", "i32", 3, "stride along the width"),
    Param("s1", "i32", 4, "stride along the height"),
    Param("p0", "i32", 5, "padding left and right"),
    Param("p1", "i32", 6, "padding above and below"),
)

OP = Op(
    name="POOL_2D",
    sources=(Source("x", ("F32", "F16"), "ne = (W, H, C, N)"),),
    types=("F32",),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
