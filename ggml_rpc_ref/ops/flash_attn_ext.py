"""FLASH_ATTN_EXT: attention in one step, softmax(scale * Q K^T + mask) V for each head.

For query j, head h and batch b, over the keys i, with kh = h / (heads / K's heads) and vh likewise:

    s[i] = scale * (K[b'][kh][i] . Q[b][h][j]);   with logit_softcap c != 0: s[i] = c * tanh(s[i] / c)
    w[i] = s[i] + slope[h] * mask[b mod m3][h mod m2][j][i]
    dst[b][j][h] = sum of exp(w[i] - max) V[b''][vh][i] / (sum of exp(w[i] - max) + exp(sink[h] - max))

max is the largest of the w and the sink; without sinks their term is missing. slope as in SOFT_MAX (ALiBi, by max_bias). A key
whose slope * mask is -inf is left out, whatever K and V hold there. A query without any key left gives 0. A score of NaN or
+inf gives NaN, and so do scores of -inf throughout, even with a sink.

src0: Q, F32 ne = (dk, queries, heads, batch). src1: K ne = (dk, keys, heads / a, batch / b). src2: V ne = (dv, at least keys,
heads / c, batch / d). K and V may be of any float or block type with a dot product, also of two types. All three have dense
rows. src3 (optional): mask, F16 ne = (at least keys, at least queries, m2, m3), m2 divides heads, m3 divides batch. src4
(optional): sinks, F32 ne0 = heads. dst: F32 contiguous, ne = (dv, heads, queries, batch): dimensions 1 and 2 are exchanged.
prec is 0 (default) or 10 (F32); both mean the same on the CPU. max_bias > 0 needs a mask.

Upstream's CPU backend has two code paths. From 64 queries on (F32 or F16 K and V of one type, dv a multiple of the vector
width) it computes in F32. Otherwise it rounds Q to the partner of K's type (see MUL_MAT) and, where V is F16, keeps the running
sum in F16; the tolerance covers that. On this second path a score of +inf takes all the weight, and one of -inf that comes
before any larger one makes the row NaN. On the first, scores of -inf throughout count as hidden, a hidden key with NaN or
infinities in K or V makes the whole row NaN, and there is a defect: with logit_softcap but no mask, where the keys are not a
multiple of 64, the missing keys of the last tile count as keys of score -logit_softcap (tanh of their -inf) and value 0. With 70
keys results 2 % too small were observed.

Source: ggml_compute_forward_flash_attn_ext_f16 and its one_chunk, tiled and reduce_partials in ggml-cpu/ops.cpp;
ggml_flash_attn_ext, ggml_flash_attn_ext_add_sinks in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared import slabs
from ggml_rpc_ref.ops.shared.attention import mask_of, masked_scores, multiply_by_head, require_mask, require_sinks
from ggml_rpc_ref.ops.shared.matmul import WEIGHTS, require_ascending_result, require_whole_block_rows
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import F32Array


def shape(node: Node) -> None:
    """Refuse heads that do not share keys evenly, rows, a mask or sinks that do not fit, an unknown prec."""
    q, k, v, mask = node.source(0), node.source(1), node.source(2), node.optional(3)
    node.require(k.ne[0] == q.ne[0], f"keys of length {q.ne[0]}", k.ne[0], at=k)
    node.require(v.ne[1] >= k.ne[1], f"at least {k.ne[1]} values", v.ne[1], at=v)
    for tensor in (k, v):
        for dim in (2, 3):
            node.require(
                tensor.ne[dim] > 0 and q.ne[dim] % tensor.ne[dim] == 0,
                f"ne[{dim}] to divide {q.ne[dim]}",
                tensor.ne[dim],
                at=tensor,
            )
    want = (v.ne[0], q.ne[2], q.ne[1], q.ne[3])
    node.require(node.dst.ne == want and node.dst.is_contiguous, f"a contiguous result of ne {want}", node.dst.ne)
    require_whole_block_rows(node, q, k, v)
    require_ascending_result(node)
    if mask is not None:
        require_mask(node, mask, columns=k.ne[1], rows=q.ne[1])
    require_sinks(node, node.optional(4))
    node.require(mask is not None or not node.f32("max_bias") > 0, "a mask where max_bias > 0", node.f32("max_bias"))
    node.require(node.i32("prec") in (0, 10), "prec 0 or 10", node.i32("prec"))


def oracle(node: Node) -> None:
    """Give 0 to a query whose keys are all hidden."""
    _attend_to_all(node, of_none=0)


def oracle_of_nan(node: Node) -> None:
    """Give NaN to a query whose keys are all hidden: 0 times the inverse of 0."""
    _attend_to_all(node, of_none=np.nan)


def _attend_to_all(node: Node, of_none: float) -> None:
    """Attend in float32: all heads of a batch entry at once, or one by one, and as many queries as their scores fit a slab."""
    q, k, v = (node.source(i).values() for i in range(3))
    result = node.dst.array
    together = q.shape[1] if 4 * q.shape[1] * k.shape[2] <= slabs.SLAB_BYTES else 1
    step = rows_per_slab(4 * together * k.shape[2])
    with np.errstate(all="ignore"):
        for i3 in range(q.shape[0] if result.size else 0):
            for heads in spans(q.shape[1], together):
                # successive batch entries share keys and values (upstream's iq3 / rk3); rows of V beyond K's are not read
                keys, values = (_shared(t[i3 * len(t) // len(q)], heads, q.shape[1]) for t in (k, v))
                for rows in spans(q.shape[2], step):
                    bias = mask_of(node, i3, rows, heads)
                    attended, total = _attend(node, q[i3, heads, rows], keys, values[:, : k.shape[2]], bias, heads)
                    attended *= np.where(total == 0, np.float32(of_none), 1 / total)
                    result[i3, rows, heads] = attended.swapaxes(0, 1)


def _shared(matrices: F32Array, heads: slice, count: int) -> F32Array:
    """Return the matrices of K or V, of one batch entry, that some of `count` heads share: all heads, or one."""
    return matrices if heads == slice(0, count) else matrices[heads.start * len(matrices) // count][None]


def _attend(
    node: Node, q: F32Array, k: F32Array, v: F32Array, bias: F32Array | None, heads: slice
) -> tuple[F32Array, F32Array]:  # fmt: skip
    """Return the weighted sums, (heads, queries, dv), and the weights' sums, (heads, queries, 1).

    Args:
        q, k, v: (heads, queries, dk), (heads / a, keys, dk), (heads / c, keys, dv).
    """
    scores, sinks = masked_scores(node, q, k, bias), node.optional(4)
    total = _exponentiate(scores, bias, None if sinks is None else sinks.array[0, 0, 0, heads, None, None])
    return _weighted_sum(scores, v), total


def _exponentiate(w: F32Array, bias: F32Array | None, sink: F32Array | None) -> F32Array:
    """Replace w by exp(w - max) and return the sums (heads, queries, 1), the sinks' term included."""
    top = np.max(w, axis=-1, keepdims=True, initial=-np.inf)
    # scores of -inf throughout have no maximum: upstream takes exp(-inf - -inf), NaN, and sinks come too late to change that
    keyless = w.shape[-1] == 0 if bias is None else np.isneginf(bias).all(axis=-1, keepdims=True)
    top = np.where(np.isneginf(top) & ~np.asarray(keyless), np.float32(np.nan), top)
    if sink is not None:
        top = np.maximum(top, sink)
    # a query without keys has only -inf: minus a finite maximum it stays -inf, and the weights become 0 rather than NaN
    top = np.where(np.isneginf(top), np.float32(0), top)
    np.exp(np.subtract(w, top, out=w), out=w)
    total: F32Array = np.sum(w, axis=-1, keepdims=True)
    if sink is not None:
        total += np.exp(sink - top)
    return total


def _weighted_sum(weights: F32Array, v: F32Array) -> F32Array:
    """Return weights @ v, where a weight of 0 hides NaN and infinities of v."""
    not_finite = ~np.isfinite(v).all(axis=(0, 2))
    if not not_finite.any():
        return multiply_by_head(weights, v)
    total = multiply_by_head(weights, np.where(np.isfinite(v), v, np.float32(0)))
    # 0 * NaN is NaN in a matrix product, so how many of each kind have a weight above 0 is counted
    counted, spoilt = (weights[..., not_finite] > 0).astype(np.float32), v[:, not_finite]
    has_nan, above, below = (
        multiply_by_head(counted, kind(spoilt).astype(np.float32)) > 0 for kind in (np.isnan, np.isposinf, np.isneginf)
    )
    total[above] += np.float32(np.inf)
    total[below] -= np.float32(np.inf)
    total[has_nan] = np.nan
    return total


def cost(node: Node) -> Cost:
    """Return the cost: the scores of one query at the least, several times over, and finite copies of V."""
    q, k, v = node.source(0), node.source(1), node.source(2)
    scores = q.nrows * k.ne[1]
    apart = q.ne[2] if 4 * q.ne[2] * k.ne[1] > slabs.SLAB_BYTES else 1
    rounds = q.ne[3] * apart + 4 * scores // slabs.SLAB_BYTES
    products = scores * (q.ne[0] + v.ne[0]) // PRODUCTS
    return Cost(24 * k.ne[1] + 8 * v.ne[0] * k.ne[1], elements(node) + 16 * scores + products + rounds * 4 * CALL)


OP = Op(
    name="FLASH_ATTN_EXT",
    sources=(
        Source("q", ("F32",), "ne = (dk, queries, heads, batch)"),
        Source("k", WEIGHTS, "ne = (dk, keys, heads / a, batch / b)"),
        Source("v", WEIGHTS, "ne = (dv, at least keys, heads / c, batch / d)"),
        Source("mask", ("F16",), "ne = (at least keys, at least queries, m2, m3), added to the scores", optional=True),
        Source("sinks", ("F32",), "ne = (heads), one more exponent in each query's sum", optional=True),
    ),
    types=("F32",),
    params=(
        Param("scale", "f32", 0, "factor on the scores"),
        Param("max_bias", "f32", 1, "ALiBi's steepest exponent; 0: no slopes"),
        Param("logit_softcap", "f32", 2, "bound that scores approach; 0: none"),
        Param("prec", "i32", 3, "ggml_prec: 0 default, 10 F32"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-3, 1e-4, 5e-4, "Q is rounded or quantised to K's partner type, an F16 V is summed in F16"),
    cost=cost,
    earlier=(before("FLASH_ATTN_EXT.hidden", oracle=oracle_of_nan),),
)
