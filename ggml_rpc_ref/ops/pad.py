"""PAD: put a border around a tensor: zeros, or (circular) the tensor itself over and over.

    dst[i0, i1, i2, i3] = src0[i0 - lp0, i1 - lp1, i2 - lp2, i3 - lp3], and 0 outside of src0
    circular: every index modulo src0's ne

src0: F32, lying anywhere. dst: F32, contiguous, ne[d] = src0.ne[d] + lp[d] + rp[d]. A negative padding cuts off. Circular asks
for lp[d] <= src0.ne[d] (further on, upstream reads before the tensor) and a source with elements. NaN, infinities, -0: moved as
they are.

Source: ggml_pad_ext, ggml_pad_ext_circular in ggml.c; ggml_compute_forward_pad_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse a result of other dimensions or with gaps, and a circular padding by more than the source."""
    src0, dst = node.source(0), node.dst
    left, right = _paddings(node)
    ne = tuple(n + before + after for n, before, after in zip(src0.ne, left, right, strict=True))
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)
    if node.i32("circular") and dst.nelements > 0:
        node.require(src0.nelements > 0, "a source with elements", src0.ne)
        node.require(all(p <= n for p, n in zip(left, src0.ne, strict=True)), f"left paddings of at most {src0.ne}", left)


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
    to, of = zip(*(_overlap(p, m, n) for p, m, n in zip(left, src.shape, dst.shape, strict=True)), strict=True)
    inner = src[of].copy()
    dst[...] = 0
    dst[to] = inner


def _overlap(padding: int, source: int, result: int) -> tuple[slice, slice]:
    """Return where in the result the source's elements come to lie, and which of them."""
    start, stop = max(padding, 0), min(padding + source, result)
    return slice(start, max(start, stop)), slice(start - padding, max(start, stop) - padding)


def _case(name: str, x: Quad, padding: tuple[int, ...], *, circular: int = 0, nb: Quad | None = None, fill: str = "normal") -> Case:
    """Return the case of a source and paddings (lp0, rp0, lp1, rp1 …)."""
    result = tuple(n + padding[2 * dim] + padding[2 * dim + 1] for dim, n in enumerate(x))
    return Case(name, Operand("F32", result), (Operand("F32", x, nb, fill),), {"padding": padding, "circular": circular})


def cases() -> Iterator[Case]:
    """Every side of every dimension, zeros and circular, cutting off, views, special values, empty sources."""
    for circular in (0, 1):
        word = "circular" if circular else "zeros"
        for side in range(8):
            padding = tuple(3 if side == other else 0 for other in range(8))
            yield _case(f"{word}-side-{side}", (5, 4, 3, 3), padding, circular=circular)
        yield _case(f"{word}-all-sides", (5, 4, 3, 8), (1, 2, 3, 4, 2, 5, 7, 1), circular=circular)
        yield _case(f"{word}-none", (5, 4, 3, 2), (0,) * 8, circular=circular)
        yield _case(f"{word}-cut-off", (9, 8, 3, 2), (-2, 1, 1, -3, 0, -1, -1, 2), circular=circular)
        yield _case(f"{word}-view", (5, 4, 3, 2), (1, 2, 0, 3, 1, 0, 0, 1), circular=circular, nb=(4, 32, 160, 640))
        yield _case(f"{word}-permuted", (5, 4, 3, 2), (1, 2, 0, 3, 1, 0, 0, 1), circular=circular, nb=(96, 24, 8, 4))
        yield _case(f"{word}-special", (31, 4, 1, 1), (2, 2, 1, 1, 0, 0, 0, 0), circular=circular, fill="special")
        yield _case(f"{word}-far-right", (3, 2, 1, 1), (0, 11, 0, 7, 0, 0, 0, 0), circular=circular)
    yield _case("any-other-number-is-circular", (3, 2, 1, 1), (1, 2, 0, 0, 0, 0, 0, 0), circular=-5)
    yield _case("zeros-around-nothing", (0, 2, 1, 1), (1, 2, 0, 0, 0, 0, 0, 0))


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
    cases=cases,
    tolerance=EXACT,
)
