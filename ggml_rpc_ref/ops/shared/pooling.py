"""What POOL_1D, POOL_2D and POOL_2D_BACK share: windows that slide over rows and planes, and the largest or the mean of each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Param
from ggml_rpc_ref.tensor import Array

MAX, MEAN = 0, 1

LOWEST = np.finfo(np.float32).min


PARAMS = (
    Param("op", "i32", 0, "0 max, 1 mean"),
    Param("k0", "i32", 1, "window width"),
    Param("k1", "i32", 2, "window height"),
    Param("s0", "i32", 3, "stride along the width"),
    Param("s1", "i32", 4, "stride along the height"),
    Param("p0", "i32", 5, "padding left and right"),
    Param("p1", "i32", 6, "padding above and below"),
)


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

    def covered(self) -> int:
        """Return a bound of how many elements all windows cover together."""
        return self.outputs * min(self.kernel, self.size)

    def places(self) -> int:
        """Return a bound of how many places of a window have an element of some output."""
        return min(self.kernel, self.size + self.outputs * self.stride)

    def fits(self) -> bool:
        """Whether ggml_calc_pool_output_size can have given this number of outputs.

        Its padding is a float of which op_params keep the integer part only, so any padding less than one away counts.
        """
        low, high = (
            (np.float32(self.size) + np.float32(2) * np.float32(p) - np.float32(self.kernel)) / np.float32(self.stride) + 1
            for p in (self.padding - 1, self.padding + 1)
        )
        return bool(self.outputs >= 1 and int(low) <= self.outputs <= int(high))


def windows(node: Node, number: int, size: int, outputs: int) -> Windows:
    """Return the windows along an axis, 0 being the width."""
    return Windows(size, outputs, *(node.i32(f"{name}{number}") for name in "ksp"))


def require_windows(node: Node, along: Windows) -> None:
    """Refuse windows of no size, a stride below 1, positions that overflow an int."""
    node.require(along.kernel >= 1, "a window of at least 1", along.kernel)
    node.require(along.stride >= 1, "a stride of at least 1", along.stride)
    last = along.outputs * along.stride + abs(along.padding) + along.kernel
    node.require(last < 2**31, "windows whose positions fit an int", last)


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
        # std::max(v, res), which takes v unless v < res: any later element replaces a NaN; np.maximum would keep it
        result[at] = np.where(element < result[at], result[at], element) if kind == MAX else result[at] + element
    if kind == MEAN:
        result /= np.float32(rows.kernel * columns.kernel) if divisor is None else divisor.astype(np.float32)
    return result


def without_nan(x: Array) -> Array:
    """Return the elements with -infinity for NaN, which then never is the largest."""
    return np.where(np.isnan(x), np.float32(-np.inf), x)


def pooling_cost(node: Node, planes: int, rows: Windows, columns: Windows) -> Cost:
    """Return the cost: lists of what each place of a window covers, and a few numpy calls for each pair of them."""
    lists = sum(24 * along.covered() + 512 * along.places() for along in (rows, columns))
    rounds = rows.places() * columns.places() * CALL
    steps = planes * rows.covered() * columns.covered() + sum(along.places() * along.outputs for along in (rows, columns))
    outputs = planes * rows.outputs * columns.outputs
    inputs = planes * rows.size * columns.size
    return Cost(lists + 20 * outputs + 8 * inputs, elements(node) + rounds + steps)
