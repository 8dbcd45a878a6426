"""UPSCALE: resize a tensor: planes by interpolation, the two outer dimensions by nearest neighbour.

mode & 0xFF: 0 nearest, 1 bilinear, 2 bicubic; + 0x100 align corners, + 0x200 antialias (bilinear only). With sf = ne_dst /
ne_src per dimension (align corners: (ne_dst - 1) / (ne_src - 1) for 0 and 1 where both are above 1) and offset 0.5 (align
corners: 0):

    nearest    index trunc(i / sf) in all four dimensions
    bilinear   x = (i + offset) / sf - offset; the pixels x0 = floor(x) and x0 + 1, clamped to the plane, weighted by 1 - dx and dx,
               dx = x - x0 clamped to [0, 1]
    bicubic    the pixels floor(x) - 1 .. + 2, clamped to the plane, weighted by cubic convolution with a = -0.75
    antialias  x = (i + offset) / sf, support = max(1, 1 / sf): the pixels from trunc(x - support + offset) to below
               trunc(x + support + offset) that lie in the plane, weighted by a triangle max(0, 1 - |p - x + offset| / support);
               the sum is divided by the sum of weights, pixels of weight 0 are left out

Bilinear and bicubic interpolate along width and height; the dimensions 2 and 3 are always nearest. Coordinates are computed in
float32: that determines which pixel is taken, so it is part of the definition. src0 and dst: F32, lying anywhere, any ne; dst's
ne give the size. A weight of 0 times NaN or infinity is NaN, except in antialias and nearest.

Source: ggml_interpolate in ggml.c; ggml_compute_forward_upscale_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array, F32Array

NEAREST, BILINEAR, BICUBIC = 0, 1, 2

ALIGN_CORNERS, ANTIALIAS = 0x100, 0x200


def shape(node: Node) -> None:
    """Refuse unknown modes, antialias with anything but bilinear, a result with elements of a source without."""
    mode, src0, dst = node.i32("mode"), node.source(0), node.dst
    node.require(mode & 0xFF in (NEAREST, BILINEAR, BICUBIC), "mode & 0xFF 0, 1 or 2", mode)
    node.require(not mode & ANTIALIAS or mode & 0xFF == BILINEAR, "antialias with bilinear only", mode)
    node.require(src0.nelements > 0 or dst.nelements == 0, "a source with elements", src0.ne, at=src0)


def shape_of_two_modes(node: Node) -> None:
    """Refuse what `shape` does, and modes that the version does not know."""
    mode = node.i32("mode")
    node.require(mode in (NEAREST, BILINEAR, BILINEAR | ALIGN_CORNERS), "mode 0, 1 or 0x101", mode)
    shape(node)


@dataclass(frozen=True, slots=True)
class Scale:
    """How one dimension is resized.

    Attributes:
        size: elements of the source.
        outputs: elements of the result.
        factor: sf, in float32.
        offset: where the centre of an element is: 0.5, or 0 where corners are aligned.
    """

    size: int
    outputs: int
    factor: np.float32
    offset: np.float32

    @classmethod
    def of(cls, node: Node, dim: int) -> "Scale":
        """Return the scale of that dimension of a node."""
        size, outputs = node.source(0).ne[dim], node.dst.ne[dim]
        aligned = bool(node.i32("mode") & ALIGN_CORNERS)
        if aligned and dim < 2 and min(size, outputs) > 1:
            factor = np.float32(outputs - 1) / np.float32(size - 1)
        else:
            factor = np.float32(outputs) / np.float32(size)
        return cls(size, outputs, factor, np.float32(0.0 if aligned else 0.5))

    def clamp(self, index: Array) -> Array:
        """Return indices clamped to the source."""
        return np.clip(index, 0, self.size - 1)

    def nearest(self) -> Array:
        """Return the source index of each output."""
        return self.clamp((np.arange(self.outputs).astype(np.float32) / self.factor).astype(np.int64))

    def centres(self) -> F32Array:
        """Return where in the source the centre of each output lies."""
        return (np.arange(self.outputs).astype(np.float32) + self.offset) / self.factor


@dataclass(frozen=True, slots=True)
class Taps:
    """The source elements that make up each output of a dimension, and how much of each.

    Attributes:
        index: shape (taps, outputs), within the source.
        weight: of that shape.
        counts: whether the element is looked at; where not it does no harm even if it is NaN.
    """

    index: Array
    weight: Array
    counts: Array

    def part(self, outputs: slice) -> "Taps":
        """Return the taps of some outputs."""
        return Taps(self.index[:, outputs], self.weight[:, outputs], self.counts[:, outputs])

    def weigh(self, pick: Callable[[Array], Array], trailing: int) -> Array:
        """Return the weighted sum of the elements that `pick` returns for the indices of a tap; float64.

        Args:
            pick: indices to elements whose outputs lie along the last axis, or along the last but one where `trailing` is -1.
            trailing: 0, or -1 where one axis follows the outputs' one.
        """
        total: Array = np.zeros(())
        for index, weight, counts in zip(self.index, self.weight.astype(np.float64), self.counts, strict=True):
            across = (..., None) if trailing else ...
            total = total + np.where(counts[across], pick(index) * weight[across], 0)
        return total

    def total(self) -> Array:
        """Return the sum of the weights that count, per output; float64."""
        return np.asarray(np.where(self.counts, self.weight, 0).sum(axis=0, dtype=np.float64))


def bilinear(scale: Scale) -> Taps:
    """Return the two neighbours of each output's centre."""
    x = scale.centres() - scale.offset
    left = np.floor(x).astype(np.int64)
    first = scale.clamp(left)
    part = np.clip(x - first.astype(np.float32), np.float32(0), np.float32(1))
    weight = np.stack([1 - part, part])
    return Taps(np.stack([first, scale.clamp(left + 1)]), weight, np.ones(weight.shape, bool))


def bicubic(scale: Scale) -> Taps:
    """Return the four neighbours of each output's centre; the cubics in float64, because upstream's compiler fuses their steps."""
    x = scale.centres() - scale.offset
    left = np.floor(x)
    part, a = x - left, -0.75
    near = [((a + 2) * t - (a + 3)) * t * t + 1 for t in (part.astype(np.float64), (1 - part).astype(np.float64))]
    far = [((a * t - 5 * a) * t + 8 * a) * t - 4 * a for t in ((part + 1).astype(np.float64), (2 - part).astype(np.float64))]
    weight = np.stack([far[0], *near, far[1]])
    return Taps(scale.clamp(left.astype(np.int64) + np.arange(-1, 3)[:, None]), weight, np.ones(weight.shape, bool))


def antialiased(scale: Scale) -> Taps:
    """Return the pixels under a triangle as wide as the distance of two outputs."""
    x, one = scale.centres(), np.float32(1)
    support = max(one, one / scale.factor)
    # C's cast to int truncates; what that makes of negative numbers is clamped away
    first = np.maximum((x - support + scale.offset).astype(np.int64), 0)
    end = np.minimum((x + support + scale.offset).astype(np.int64), scale.size)
    index = first + np.arange(int(np.max(end - first, initial=1)))[:, None]
    distance = (index.astype(np.float32) - x + scale.offset) * (one / support)
    weight = np.maximum(one - np.abs(distance), np.float32(0))
    return Taps(scale.clamp(index), weight, (index < end) & (weight > 0))


def oracle(node: Node) -> None:
    """Resize blocks of rows: first along the height, then along the width."""
    if node.dst.nelements == 0:
        return
    width, height, channels, images = (Scale.of(node, dim) for dim in range(4))
    src, dst, mode = node.source(0).array, node.dst.array, node.i32("mode")
    i2, i3 = channels.nearest(), images.nearest()
    result = np.empty(dst.shape, np.float32)
    if mode & 0xFF == NEAREST:
        i0, i1 = width.nearest(), height.nearest()
        for b3, b2, b1 in row_blocks(node.dst.ne):
            result[b3, b2, b1] = src[np.ix_(i3[b3], i2[b2], i1[b1], i0)]
    else:
        kind = {BILINEAR: antialiased if mode & ANTIALIAS else bilinear, BICUBIC: bicubic}[mode & 0xFF]
        rows, columns = kind(height), kind(width)
        # blocks by the temporaries: the rows before they are resized along the width may be the wider ones, and they are float64
        for b3, b2, b1 in row_blocks((2 * max(width.size, width.outputs), *node.dst.ne[1:])):
            result[b3, b2, b1] = _interpolate(src, i3[b3], i2[b2], rows.part(b1), columns, bool(mode & ANTIALIAS))
    dst[...] = result


@np.errstate(all="ignore")
def _interpolate(src: Array, i3: Array, i2: Array, rows: Taps, columns: Taps, normalise: bool) -> Array:
    """Return some rows of some planes, weighted in float64 and, if asked for, divided by the sum of the weights."""
    tall = rows.weigh(lambda index: src[np.ix_(i3, i2, index)], -1)
    wide = columns.weigh(lambda index: tall[..., index], 0)
    if not normalise:
        return wide
    total = rows.total()[:, None] * columns.total()
    return np.where(total > 0, wide / np.where(total > 0, total, 1), 0)


def cost(node: Node) -> Cost:
    """Return the cost: the result once more, and for each output of a dimension the elements that make it up."""
    pairs = [(node.source(0).ne[dim], node.dst.ne[dim]) for dim in range(4)]
    taps = [max(4, 2 * size // max(1, outputs) + 3) for size, outputs in pairs[:2]]
    lists = 40 * sum(count * outputs for count, (_, outputs) in zip(taps, pairs[:2], strict=True)) + 64 * sum(map(sum, pairs))
    row = 64 * max(pairs[0])
    rows = node.dst.nrows * max(pairs[0])
    return Cost(4 * node.dst.nelements + lists + row, elements(node) + rows * sum(taps) + sum(taps) * CALL * (1 + rows // 2**20))


OP = Op(
    name="UPSCALE",
    sources=(Source("x", ("F32",), "ne = (W, H, C, N)"),),
    types=("F32",),
    params=(Param("mode", "i32", 0, "0 nearest, 1 bilinear, 2 bicubic; + 0x100 align corners; + 0x200 antialias"),),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-5, 1e-10, "float32 weights, products contracted to fused ones or not, and sums that cancel"),
    cost=cost,
    earlier=(before("UPSCALE.modes", shape=shape_of_two_modes),),
)
