"""PAD: put a border around a tensor: zeros, or (circular) repetitions of the tensor.

    dst[i0, i1, i2, i3] = src0[i0 - lp0, i1 - lp1, i2 - lp2, i3 - lp3], and 0 outside of src0
    circular: every index modulo src0's ne

src0: F32, lying anywhere. dst: F32, contiguous, ne[d] = src0.ne[d] + lp[d] + rp[d]. A negative padding cuts off. Circular asks
for lp[d] <= src0.ne[d] (further on, upstream reads before the tensor) and a source with elements. NaN, infinities, -0: moved as
they are.

Source: ggml_pad_ext, ggml_pad_ext_circular in ggml.c; ggml_compute_forward_pad_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Sequence

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array


def shape(node: Node) -> None:
    """Refuse a result of other dimensions or with gaps, and a circular padding by more than the source."""
    src0, dst = node.source(0), node.dst
    left, right = _paddings(node)
    ne = tuple(n + before + after for n, before, after in zip(src0.ne, left, right, strict=True))
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)
    if node.i32("circular") and dst.nelements > 0:
        node.require(src0.nelements > 0, "a source with elements", src0.ne, at=src0)
        # ggml_wrap_around (ops.cpp) adds the size only once, so further left its index would be negative
        node.require(all(p <= n for p, n in zip(left, src0.ne, strict=True)), f"left paddings of at most {src0.ne}", left)


def shape_of_zeros(node: Node) -> None:
    """Refuse what `shape` does, and a circular padding, which the version does not know."""
    node.require(not node.i32("circular"), "no circular padding", node.i32("circular"))
    shape(node)


def shape_of_dense_rows(node: Node) -> None:
    """Refuse what `shape_of_zeros` does, and a source whose rows have gaps."""
    require_dense_rows(node, node.source(0))
    shape_of_zeros(node)


def shape_behind(node: Node) -> None:
    """Refuse a result with gaps, and a source whose rows have gaps; the parameters are not read."""
    node.require(node.dst.is_contiguous, "a contiguous result", node.dst.nb)
    require_dense_rows(node, node.source(0))


def _paddings(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the paddings before and after, in ne order."""
    both = node.i32s("padding")
    return both[0::2], both[1::2]


def oracle(node: Node) -> None:
    """Copy once, or gather by indices modulo the source's dimensions."""
    src, dst = node.source(0).array, node.dst.array
    left = _paddings(node)[0][::-1]
    if dst.size == 0:
        return
    if node.i32("circular"):
        dst[...] = src[np.ix_(*((np.arange(n) - p) % m for n, p, m in zip(dst.shape, left, src.shape, strict=True)))]
        return
    _place(src, dst, left)


def oracle_behind(node: Node) -> None:
    """Copy, and put zeros behind."""
    _place(node.source(0).array, node.dst.array, (0, 0, 0, 0))


def _place(src: Array, dst: Array, left: Sequence[int]) -> None:
    """Copy what fits of the source to so many elements from the beginning, and put zeros elsewhere."""
    to, of = zip(*(_overlap(p, m, n) for p, m, n in zip(left, src.shape, dst.shape, strict=True)), strict=True)
    # before the zeros: dst may lie on the source's memory
    inner = src[of].copy()
    dst[...] = 0
    dst[to] = inner


def _overlap(padding: int, source: int, result: int) -> tuple[slice, slice]:
    """Return the part of the result that the source's elements fill, and which of them those are."""
    start, stop = max(padding, 0), min(padding + source, result)
    # max: where negative paddings cut everything off, stop lies before start, and a negative end would count from the back
    return slice(start, max(start, stop)), slice(start - padding, max(start, stop) - padding)


OP = Op(
    name="PAD",
    sources=(Source("x", ("F32",), "ne = any"),),
    types=("F32",),
    params=(
        Param("padding", "i32", 0, "elements before and after, dimension by dimension: lp0, rp0, lp1, rp1 …", count=8),
        Param("circular", "i32", 8, "0: zeros; else the tensor repeats"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    earlier=(
        before("PAD.circular", shape=shape_of_zeros),
        before("PAD.strides", shape=shape_of_dense_rows),
        before("PAD.before", shape=shape_behind, oracle=oracle_behind),
    ),
)
