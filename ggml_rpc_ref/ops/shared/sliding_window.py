"""The geometry of a convolution's window, which the IM2COL and CONV ops share.

Along one axis, tap k of output o covers input index o * stride + k * dilation - padding. Outside [0, size) it covers padding.
Padding and dilation may be any integers (a negative padding crops); a stride is at least 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.ops.op import Node, Param
from ggml_rpc_ref.tensor import Array, Tensor

Axes = tuple["Axis", "Axis", "Axis"]
"""Depth, height and width."""

BLOCK_BYTES = 64 << 20
"""About how many bytes of float64 taps are gathered at a time."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A window that slides along one axis.

    Attributes:
        size: elements of the input.
        kernel: taps of the window.
        stride: input elements from one output's window to the next one's.
        padding: how far the first window begins before the input.
        dilation: input elements from one tap to the next.
    """

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def outputs(self) -> int:
        """How many windows fit: ggml_calc_conv_output_size in ggml.c, whose division truncates towards 0; may be negative."""
        # // rounds down, C's division truncates, which differs for a negative numerator
        room = self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        return (abs(room) // self.stride) * (1 if room >= 0 else -1) + 1

    def span(self, tap: int, start: int, stop: int) -> tuple[slice, slice]:
        """Return which of the outputs from start to stop have this tap on the input, counted from start, and the elements there."""
        shift = tap * self.dilation - self.padding
        # -(a // b) is the ceiling of -a / b: the first output whose tap is not before the input
        first = max(start, -(shift // self.stride))
        count = max(0, min(stop, (self.size - 1 - shift) // self.stride + 1) - first)
        begin = first * self.stride + shift
        return slice(first - start, first - start + count), slice(begin, begin + count * self.stride, self.stride)


POINT = Axis(1, 1)
"""The axis that an image of fewer dimensions does not have."""


def params(axes: int) -> tuple[Param, ...]:
    """Return the rows of the strides, then the paddings, then the dilations of that many axes, in ggml's order."""
    words = {"s": "stride, at least 1,", "p": "padding on either side", "d": "dilation (distance of neighbouring taps)"}
    entries = [(kind, axis) for kind in words for axis in range(axes)]
    names = ("width", "height", "depth")
    return tuple(Param(f"{k}{axis}", "i32", slot, f"{words[k]} along the {names[axis]}") for slot, (k, axis) in enumerate(entries))


def axis(node: Node, number: int, size: int, kernel: int) -> Axis:
    """Return the axis of that number with the node's stride, padding and dilation; refuse a stride below 1."""
    stride, padding, dilation = (node.i32(f"{kind}{number}") for kind in "spd")
    node.require(stride >= 1, f"s{number} >= 1", stride)
    return Axis(size, kernel, stride, padding, dilation)


@dataclass(frozen=True, slots=True)
class OutputBlock:
    """A part of the outputs, and the elements under their taps.

    Attributes:
        images: which images.
        depth: index of the output plane.
        rows: which output rows of it.
        values: the elements, 0 on padding, shape (images, channels, kernel depth, height, width, rows, output width).
    """

    images: slice
    depth: int
    rows: slice
    values: Array


def output_blocks(images: Array, axes: Axes) -> Iterator[OutputBlock]:
    """Yield the windows' elements in blocks that cover all outputs and stay small.

    Args:
        images: shape (images, channels, depth, height, width).
        axes: the windows along depth, height and width.
    """
    depth, height, width = axes
    row_bytes = 8 * max(1, width.outputs * images.shape[1] * depth.kernel * height.kernel * width.kernel)
    rows = min(max(1, BLOCK_BYTES // row_bytes), max(1, height.outputs))
    count = max(1, BLOCK_BYTES // (row_bytes * max(1, height.outputs)))
    for first in range(0, len(images), count):
        for plane in range(depth.outputs):
            for top in range(0, height.outputs, rows):
                part, span = slice(first, min(first + count, len(images))), slice(top, min(top + rows, height.outputs))
                yield OutputBlock(part, plane, span, _gather(images[part], axes, plane, span))


def _gather(images: Array, axes: Axes, plane: int, rows: slice) -> Array:
    """Return the elements under the windows of some rows of one output plane; see `OutputBlock.values`."""
    depth, height, width = axes
    kernel = (depth.kernel, height.kernel, width.kernel)
    values = np.zeros((*images.shape[:2], *kernel, rows.stop - rows.start, width.outputs), images.dtype)
    for kd, kh, kw in np.ndindex(kernel):
        planes, at = depth.span(kd, plane, plane + 1)
        (of_row, row), (of_column, column) = height.span(kh, rows.start, rows.stop), width.span(kw, 0, width.outputs)
        # a tap whose plane lies on padding leaves the zeros
        if planes.stop > planes.start:
            values[:, :, kd, kh, kw, of_row, of_column] = images[:, :, at.start, row, column]
    return values


@np.errstate(all="ignore")
def write_rows(dst: Tensor, images: Array, axes: Axes) -> None:
    """Write the windows of images, shape (n, channels, depth, height, width), one per row of a contiguous result."""
    if dst.nelements == 0:
        return
    depth, height, width = axes
    rows = dst.array.reshape(len(images), depth.outputs, height.outputs, width.outputs, dst.ne[0])
    for block in output_blocks(images, axes):
        # from (images, channels, kd, kh, kw, rows, width) to one row per output, its taps in the order of a kernel's elements
        windows = block.values.transpose(0, 5, 6, 1, 2, 3, 4)
        part = rows[block.images, block.depth, block.rows]
        part[...] = windows.reshape(part.shape).astype(rows.dtype, copy=False)
