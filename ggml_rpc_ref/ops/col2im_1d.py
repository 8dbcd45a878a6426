"""COL2IM_1D: columns added up to a signal, the second half of a transposed convolution; it undoes IM2COL as IM2COL_BACK does.

    dst[t, oc] = sum of src0[oc*K + k, l] over all columns l and taps k with l*s0 + k - p0 = t

src0: F32, F16 or BF16, contiguous, ne = (K*OC, L). dst: the same type, contiguous, ne = ((L - 1)*s0 + K - 2*p0, OC), at least one
element in each row: p0 elements are cut off at both ends. Sums are in float32, columns in ascending order, rounded once to dst's
type. What no column reaches (s0 > K) is 0.

Source: ggml_col2im_1d in ggml.c; ggml_compute_forward_col2im_1d_impl in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import F32Array, Tensor


def shape(node: Node) -> None:
    """Refuse further dimensions, gaps, rows that are not a whole number of taps, a result of other dimensions or type."""
    columns, dst = node.source(0), node.dst
    stride, channels, cut = (node.i32(name) for name in ("s0", "oc", "p0"))
    node.require(stride > 0 and channels > 0 and cut >= 0, "s0 > 0, oc > 0 and p0 >= 0", (stride, channels, cut))
    node.require(columns.ne[2:] == (1, 1), "a matrix", columns.ne, at=columns)
    node.require(columns.is_contiguous, "contiguous columns", columns.nb, at=columns)
    taps, rest = divmod(columns.ne[0], channels)
    node.require(taps > 0 and rest == 0, f"src0.ne[0] a multiple of {channels}", columns.ne[0], at=columns)
    ne = ((columns.ne[1] - 1) * stride + taps - 2 * cut, channels, 1, 1)
    node.require(ne[0] > 0, "p0 that leaves something", cut)
    node.require(dst.dtype == columns.dtype, f"type {columns.dtype.name} as the source", dst.dtype.name)
    node.require(dst.ne == ne and dst.is_contiguous, f"a contiguous result of ne {ne}", (dst.ne, dst.nb))


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add up some channels at a time, tap by tap from the last: that is the order of the columns for each element."""
    stride, cut, (length, channels, _, _) = node.i32("s0"), node.i32("p0"), node.dst.ne
    taps, count = node.source(0).ne[0] // channels, node.source(0).ne[1]
    for some in spans(channels, rows_per_slab(8 * max(length, count))):
        total = np.zeros((some.stop - some.start, length), np.float32)
        for tap in spans(taps, 1):
            k = taps - 1 - tap.start
            first, last = max(0, -((k - cut) // stride)), min(count - 1, (length - 1 + cut - k) // stride)
            if first <= last:
                begin = first * stride + k - cut
                total[:, begin : begin + (last - first) * stride + 1 : stride] += _tap(node, k, some, slice(first, last + 1))
        node.dst.rows(some.start, some.stop).store(total[None, None])


def _tap(node: Node, k: int, channels: slice, columns: slice) -> F32Array:
    """Return one tap of some channels and columns, shape (channels, columns)."""
    source, taps = node.source(0), node.source(0).ne[0] // node.dst.ne[1]
    size = source.dtype.size
    offset = source.offset + columns.start * source.ne[0] * size + (channels.start * taps + k) * size
    ne = (channels.stop - channels.start, columns.stop - columns.start, 1, 1)
    nb = (taps * size, source.ne[0] * size, 0, 0)
    values: F32Array = Tensor(source.dtype, ne, nb, source.storage, offset, source.name).values()[0, 0].T
    return values


def cost(node: Node) -> Cost:
    """Return the cost: some channels' sums and one tap of them, at least one channel, tap by tap."""
    length, channels, _, _ = node.dst.ne
    taps, count = node.source(0).ne[0] // channels, node.source(0).ne[1]
    parts = -(-channels // rows_per_slab(8 * max(length, count)))
    return Cost(12 * max(length, count), elements(node) + taps * parts * CALL)


OP = Op(
    name="COL2IM_1D",
    sources=(Source("columns", FLOATS, "ne = (K*OC, L)"),),
    types=FLOATS,
    params=(
        Param("s0", "i32", 0, "distance of the columns' signals, at least 1"),
        Param("oc", "i32", 1, "OC, channels of the signal"),
        Param("p0", "i32", 2, "elements cut off at both ends"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
)
