"""What SOFT_MAX and FLASH_ATTN_EXT share: a mask that is added to scores, its slope for each head (ALiBi), and attention sinks."""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.matmul import grouped
from ggml_rpc_ref.tensor import F32Array, Tensor


def require_mask(node: Node, mask: Tensor, *, columns: int, rows: int) -> None:
    """Refuse a mask with too few rows or columns, with gaps between elements, or whose matrices do not broadcast."""
    x = node.source(0)
    node.require(mask.ne[0] >= columns and mask.ne[1] >= rows, f"a mask of at least {columns} x {rows}", mask.ne, at=mask)
    require_contiguous_rows(node, mask)
    for dim in (2, 3):
        n, m = x.ne[dim], mask.ne[dim]
        node.require(m > 0 and n % m == 0, f"ne[{dim}] of the mask to divide {n}", m, at=mask)


def require_sinks(node: Node, sinks: Tensor | None) -> None:
    """Refuse sinks that are not one per head (dimension 2 of src0), without gaps."""
    if sinks is not None:
        heads = node.source(0).ne[2]
        node.require(sinks.ne[0] == heads, f"{heads} sinks, one per head", sinks.ne[0], at=sinks)
        require_contiguous_rows(node, sinks)
        node.require(sinks.nelements > 0 or heads == 0, "a sink for every head", sinks.ne, at=sinks)


def slopes(heads: int, max_bias: float) -> F32Array:
    """Return the ALiBi slope of each head, all 1 unless max_bias > 0. Sources: ops.cpp; the ALiBi paper (arXiv 2108.12409)."""
    if not max_bias > 0 or heads == 0:
        return np.ones(heads, np.float32)
    whole = 1 << (heads.bit_length() - 1)
    head = np.arange(heads)
    # upstream's m0^(h + 1) and m1^(2 (h - whole) + 1) with m1 = 2^(-max_bias / 2 / whole): one base, the second exponent halved
    steps = np.where(head < whole, head + 1, head - whole + 0.5)
    return np.power(2.0, -np.float64(max_bias) / whole * steps).astype(np.float32)


def mask_of(node: Node, i3: int, rows: slice, heads: slice | None = None) -> F32Array | None:
    """Return what is added to the scores of some heads, shape (heads, queries, keys) or with 1 for heads that have all the same."""
    mask, (_, queries, all_heads, _), keys = node.optional(3), node.source(0).ne, node.source(1).ne[1]
    if mask is None:
        return None
    # head h takes the mask's matrix h mod ne[2]
    chosen = np.arange(all_heads)[heads or slice(None)]
    matrices = mask.array[i3 % mask.ne[3], :, rows.start : min(rows.stop, queries), :keys]
    bias: F32Array = (matrices if mask.ne[2] == 1 else matrices[chosen % mask.ne[2]]).astype(np.float32)
    if node.f32("max_bias") > 0:
        return bias * slopes(all_heads, node.f32("max_bias"))[chosen, None, None]
    return bias


def masked_scores(node: Node, q: F32Array, k: F32Array, bias: F32Array | None, dots: F32Array | None = None) -> F32Array:
    """Return w (heads, queries, keys), -inf for a hidden key, for q (heads, queries, dk) and k (heads / a, keys, dk).

    A backend with its own products of q and k passes them as `dots`, which is overwritten.
    """
    scores = multiply_by_head(q, k.swapaxes(-1, -2)) if dots is None else dots
    scores *= np.float32(node.f32("scale"))
    if (cap := np.float32(node.f32("logit_softcap"))) != 0:
        scores = cap * np.tanh(scores / cap)
    if bias is not None:
        scores += bias
        # set rather than added: a key of NaN or +inf that is hidden must not make the sum NaN
        np.copyto(scores, -np.inf, where=np.isneginf(bias))
    return scores


def multiply_by_head(x: F32Array, y: F32Array) -> F32Array:
    """Return x @ y for (heads, n, k) and (heads / r, k, m), where r successive heads share a matrix of y."""
    shared: F32Array = grouped(x[None], 1, len(y)) @ y[None, None, :, None]
    return shared.reshape(len(x), x.shape[1], y.shape[2])
