"""Where the window of a convolution lies: the geometry that the IM2COL and CONV ops share.

Along one axis, tap k of output o stands on input index o * stride + k * dilation - padding. Outside [0, size) it stands on
padding. Padding and dilation may be any integers (a negative padding crops); a stride is at least 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.ops.op import Node, Param
from ggml_rpc_ref.tensor import Array

Indices = npt.NDArray[np.int64]
Axes = tuple["Axis", "Axis", "Axis"]
"""Depth, height and width."""

BLOCK_BYTES = 64 << 20
"""Bytes of float64 taps that are gathered at one time, about."""


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
        room = self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        return (abs(room) // self.stride) * (1 if room >= 0 else -1) + 1

    def taps(self, start: int, stop: int) -> Indices:
        """Return the input index under each tap of the outputs from start to stop, shape (outputs, kernel)."""
        first = np.arange(start, stop, dtype=np.int64) * self.stride - self.padding
        return first[:, None] + np.arange(self.kernel, dtype=np.int64) * self.dilation

    def is_inside(self, taps: Indices) -> npt.NDArray[np.bool_]:
        """Return for each tap whether it stands on the input, not on padding."""
        return (taps >= 0) & (taps < self.size)


POINT = Axis(1, 1)
"""The axis that an image of fewer dimensions does not have."""


def params(axes: int) -> tuple[Param, ...]:
    """Return the rows of the strides, then the paddings, then the dilations of so many axes, as ggml lays them in op_params."""
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
class Block:
    """A part of the outputs, and what their taps stand on.

    Attributes:
        images: which images.
        depth: index of the output plane.
        rows: which output rows of it.
        values: the elements, 0 on padding, shape (images, rows, output width, channels, kernel depth, height, width).
    """

    images: slice
    depth: int
    rows: slice
    values: Array


def blocks(images: Array, axes: Axes) -> Iterator[Block]:
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
                yield Block(part, plane, span, _gather(images[part], axes, plane, span))


def _gather(images: Array, axes: Axes, plane: int, span: slice) -> Array:
    """Return the elements under the windows of some rows of one output plane; see `Block.values`."""
    depth, height, width = axes
    d, h, w = depth.taps(plane, plane + 1), height.taps(span.start, span.stop), width.taps(0, width.outputs)
    d, h = d[..., None, None, None, None], h[..., None, None]
    shape = (*images.shape[:2], *np.broadcast_shapes(d.shape, h.shape, w.shape))
    if images.size == 0:
        return np.zeros(shape, images.dtype)[:, :, 0].transpose(0, 3, 5, 1, 2, 4, 6)
    at: tuple[Any, ...] = tuple(np.clip(index, 0, along.size - 1) for index, along in zip((d, h, w), axes, strict=True))
    values = images[(slice(None), slice(None), *at)]
    for index, along in zip((d, h, w), axes, strict=True):
        np.copyto(values, 0, where=~along.is_inside(index))
    return values[:, :, 0].transpose(0, 3, 5, 1, 2, 4, 6)
