"""SOFT_MAX: turn each row into weights that sum to 1, with a mask, ALiBi slopes and sinks.

    w = scale * src0 + slope[i2] * mask
    dst[i] = exp(w[i] - max) / (sum over the row of exp(w - max) + exp(sink[i2] - max))

max is the largest of the row's w and of the sink; without sinks their term is missing.
slope is 1 unless max_bias > 0; then, with h = i2 and n = the largest power of 2 up to ne2,
    slope = 2^(-max_bias * (h + 1) / n) for h < n,   2^(-max_bias / 2 * (2 * (h - n) + 1) / n) for the others.

src0: F32 ne = (n, rows, heads, batch), dense rows (ggml's constructor requires it to be contiguous). src1 (optional): mask, F16
or F32, ne = (n, at least rows, m2, m3) where m2 divides heads and m3 divides batch; matrix i2 uses mask i2 mod m2. src2
(optional): sinks, F32, ne0 = heads. dst: F32, src0's ne; may be src0's own memory. max_bias > 0 needs a mask. A row that is
-inf throughout becomes NaN (0/0), unless a sink keeps the sum above 0: then it becomes 0. A row with NaN or +inf becomes NaN. n
= 0 or no rows: nothing is computed.

Source: ggml_compute_forward_soft_max_f32 in ggml-cpu/ops.cpp (sum in double); ggml_soft_max_impl and ggml_soft_max_add_sinks in
ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.attention import require_mask, require_sinks, slopes
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.slabs import RowBlock, row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import F32Array, Tensor


def shape(node: Node) -> None:
    """Refuse other dimensions, gaps between elements, a mask or sinks that do not fit, slopes without a mask."""
    x, mask, sinks = node.source(0), node.optional(1), node.optional(2)
    node.require(node.dst.ne == x.ne, f"ne {x.ne} as the source", node.dst.ne)
    require_contiguous_rows(node, x, node.dst)
    if mask is not None:
        require_mask(node, mask, columns=x.ne[0], rows=x.ne[1])
        node.require(mask.ne[0] == x.ne[0], f"a mask of {x.ne[0]} columns", mask.ne[0], at=mask)
    require_sinks(node, sinks)
    node.require(mask is not None or not node.f32("max_bias") > 0, "a mask where max_bias > 0", node.f32("max_bias"))


def oracle(node: Node) -> None:
    """Compute the formula, in float32 with sums in float64, a block of rows at a time."""
    x, result, mask = node.source(0).array, node.dst.array, node.optional(1)
    scale = np.float32(node.f32("scale"))
    with np.errstate(all="ignore"):
        slope = slopes(x.shape[1], node.f32("max_bias"))
        for block in row_blocks(node.dst.ne):
            # np.max refuses rows without elements; if one block has none, no block has any
            if x[block].size == 0:
                return
            w = x[block] * scale
            if mask is not None:
                w += slope[block[1], None, None] * _mask(mask, block, x.shape)
            result[block] = _normalise(w, _sinks(node, block))


def _mask(mask: Tensor, block: RowBlock, shape: tuple[int, ...]) -> F32Array:
    """Return the mask's values for a block of rows; its matrices are used in turn along dimensions 2 and 3."""
    i3, i2 = (np.arange(shape[axis])[block[axis]] % mask.shape[axis] for axis in (0, 1))
    values: F32Array = mask.array[i3[:, None], i2, block[2]].astype(np.float32)
    return values


def _sinks(node: Node, block: RowBlock) -> F32Array | None:
    sinks = node.optional(2)
    return None if sinks is None else sinks.array[0, 0, 0, block[1], None, None]


def _normalise(w: F32Array, sinks: F32Array | None) -> F32Array:
    top = np.max(w, axis=-1, keepdims=True)
    if sinks is not None:
        top = np.maximum(top, sinks)
    # in place: w may be as large as a slab
    np.exp(np.subtract(w, top, out=w), out=w)
    total = np.sum(w, axis=-1, keepdims=True, dtype=np.float64)
    if sinks is not None:
        total += np.exp(sinks - top)
    w *= (1 / total).astype(np.float32)
    return w


OP = Op(
    name="SOFT_MAX",
    sources=(
        Source("x", ("F32",), "ne = (n, rows, heads, batch)"),
        Source("mask", ("F16", "F32"), "ne = (n, at least rows, m2, m3), added to x", optional=True),
        Source("sinks", ("F32",), "ne = (heads), one more exponent in each row's sum", optional=True),
    ),
    types=("F32",),
    params=(Param("scale", "f32", 0, "factor on x"), Param("max_bias", "f32", 1, "ALiBi's steepest exponent; 0: no slopes")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0, 1),
    cost=by_row,
)
