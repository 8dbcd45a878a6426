"""FLASH_ATTN_EXT: attention in one step, softmax(scale * Q K^T + mask) V for each head.

For query j, head h and batch b, over the keys i, with kh = h / (heads / K's heads) and vh likewise:

    s[i] = scale * (K[b'][kh][i] . Q[b][h][j]);   with logit_softcap c != 0: s[i] = c * tanh(s[i] / c)
    w[i] = s[i] + slope[h] * mask[b mod m3][h mod m2][j][i]
    dst[b][j][h] = sum of exp(w[i] - max) V[b''][vh][i] / (sum of exp(w[i] - max) + exp(sink[h] - max))

max is the largest of the w and the sink; without sinks their term is missing. slope as in SOFT_MAX (ALiBi, by max_bias).
A key whose slope * mask is -inf takes no part, whatever K and V hold there. A query without any key left gives 0. A score of NaN or
+inf gives NaN.

src0: Q, F32 ne = (dk, queries, heads, batch). src1: K ne = (dk, keys, heads / a, batch / b). src2: V ne = (dv, at least keys,
heads / c, batch / d). K and V may be of any float or block type with a dot product, also of two types. Elements (or blocks) of
a row are neighbours, rows lie anywhere. src3 (optional): mask, F16 ne = (at least keys, at least queries, m2, m3), m2 divides
heads, m3 divides batch. src4 (optional): sinks, F32 ne0 = heads.
dst: F32 contiguous, ne = (dv, heads, queries, batch): dimensions 1 and 2 are exchanged.
prec is 0 (default) or 10 (F32); both mean the same on the CPU. max_bias > 0 needs a mask.

Upstream's CPU has two ways. From 64 queries on (F32 or F16 K and V of one type, dv a multiple of the vector width) it computes
in F32. Otherwise it rounds Q to the partner of K's type (see MUL_MAT) and, where V is F16, keeps the running sum in F16; the
tolerance says how far that goes. In this second way a score of +inf takes all the weight. In the first way a hidden key with NaN
or infinities in K or V spoils the row, and there is a defect: with logit_softcap but no mask, where the keys are no multiple of
64, the missing keys of the last tile count as keys of score -logit_softcap (tanh of their -inf) and value 0. With 70 keys results
were seen to be 2 % too small.

Source: ggml_compute_forward_flash_attn_ext_f16 and its one_chunk, tiled and reduce_partials in ggml-cpu/ops.cpp;
ggml_flash_attn_ext, ggml_flash_attn_ext_add_sinks in ggml.c.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.mul_mat import WEIGHTS, grouped, packed_rows, plain_result, weights
from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Param, Source, Tolerance
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab
from ggml_rpc_ref.ops.soft_max import check_mask, check_sinks, slopes
from ggml_rpc_ref.tensor import F32Array, Tensor


def shape(node: Node) -> None:
    """Refuse heads that don't share keys evenly, rows that don't fit, a mask or sinks that don't fit, an unknown prec."""
    q, k, v, mask = node.source(0), node.source(1), node.source(2), node.optional(3)
    node.require(k.ne[0] == q.ne[0], f"keys of length {q.ne[0]}", k.ne[0])
    node.require(v.ne[1] >= k.ne[1], f"at least {k.ne[1]} values", v.ne[1])
    for tensor in (k, v):
        for dim in (2, 3):
            node.require(tensor.ne[dim] > 0 and q.ne[dim] % tensor.ne[dim] == 0, f"ne[{dim}] to divide {q.ne[dim]}", tensor.ne[dim])
    want = (v.ne[0], q.ne[2], q.ne[1], q.ne[3])
    node.require(node.dst.ne == want and node.dst.is_contiguous, f"a contiguous result of ne {want}", node.dst.ne)
    packed_rows(node, q, k, v)
    plain_result(node)
    if mask is not None:
        check_mask(node, mask, columns=k.ne[1], rows=q.ne[1])
    check_sinks(node, node.optional(4))
    node.require(mask is not None or not node.f32("max_bias") > 0, "a mask where max_bias > 0", node.f32("max_bias"))
    node.require(node.i32("prec") in (0, 10), "prec 0 or 10", node.i32("prec"))


def oracle(node: Node) -> None:
    """Attend in float32, all heads of a batch entry at once, as many queries at a time as their scores fit a slab."""
    q, k, v = (node.source(i).values() for i in range(3))
    result = node.dst.array
    step = rows_per_slab(4 * q.shape[1] * k.shape[2])
    with np.errstate(all="ignore"):
        for i3 in range(q.shape[0] if result.size else 0):
            keys, values = (t[i3 * len(t) // len(q)] for t in (k, v))
            for start in range(0, q.shape[2], step):
                rows = slice(start, start + step)
                attended = _attend(node, q[i3, :, rows], keys, values[:, : k.shape[2]], mask_of(node, i3, rows))
                result[i3, rows] = attended.swapaxes(0, 1)


def mask_of(node: Node, i3: int, rows: slice) -> F32Array | None:
    """Return what is added to the scores, shape (heads, queries, keys) or with 1 for heads where all have the same."""
    mask, (_, queries, heads, _), keys = node.optional(3), node.source(0).ne, node.source(1).ne[1]
    if mask is None:
        return None
    stop = min(rows.stop, queries)
    bias: F32Array = mask.array[i3 % mask.ne[3], :, rows.start : stop, :keys].astype(np.float32)
    if node.f32("max_bias") > 0:
        return np.tile(bias, (heads // mask.ne[2], 1, 1)) * slopes(heads, node.f32("max_bias"))[:, None, None]
    return bias if mask.ne[2] in (1, heads) else np.tile(bias, (heads // mask.ne[2], 1, 1))


def _attend(node: Node, q: F32Array, k: F32Array, v: F32Array, bias: F32Array | None) -> F32Array:
    """Return (heads, queries, dv) for q (heads, queries, dk), k (heads / a, keys, dk), v (heads / c, keys, dv)."""
    scores = masked_scores(node, q, k, bias)
    total = _exponentiate(scores, node.optional(4))
    return _weighted_sum(scores, v) * np.where(total == 0, 0, 1 / total)


def masked_scores(node: Node, q: F32Array, k: F32Array, bias: F32Array | None, dots: F32Array | None = None) -> F32Array:
    """Return w (heads, queries, keys), -inf for a hidden key, for q (heads, queries, dk) and k (heads / a, keys, dk).

    A backend that multiplies otherwise brings its own products, `dots`, which are changed.
    """
    scores = _per_head(q, k.swapaxes(-1, -2)) if dots is None else dots
    scores *= np.float32(node.f32("scale"))
    if (cap := np.float32(node.f32("logit_softcap"))) != 0:
        scores = cap * np.tanh(scores / cap)
    if bias is not None:
        scores += bias
        np.copyto(scores, -np.inf, where=np.isneginf(bias))
    return scores


def _per_head(x: F32Array, y: F32Array) -> F32Array:
    """Return x @ y for (heads, n, k) and (heads / r, k, m), where r neighbouring heads share a matrix of y."""
    shared: F32Array = grouped(x[None], 1, len(y)) @ y[None, None, :, None]
    return shared.reshape(len(x), x.shape[1], y.shape[2])


def _exponentiate(w: F32Array, sinks: Tensor | None) -> F32Array:
    """Replace w by exp(w - max) and return the sums (heads, queries, 1), the sinks' term included."""
    top = np.max(w, axis=-1, keepdims=True, initial=-np.inf)
    sink = None if sinks is None else sinks.array[0, 0, 0, :, None, None]
    if sink is not None:
        top = np.maximum(top, sink)
    top = np.where(np.isneginf(top), np.float32(0), top)
    np.exp(np.subtract(w, top, out=w), out=w)
    total: F32Array = np.sum(w, axis=-1, keepdims=True)
    if sink is not None:
        total += np.exp(sink - top)
    return total


def _weighted_sum(weights: F32Array, v: F32Array) -> F32Array:
    """Return weights @ v, where a weight of 0 hides NaN and infinities of v."""
    odd = ~np.isfinite(v).all(axis=(0, 2))
    if not odd.any():
        return _per_head(weights, v)
    total = _per_head(weights, np.where(np.isfinite(v), v, np.float32(0)))
    for key in np.flatnonzero(odd):
        row = np.where(np.isfinite(v[:, key]), np.float32(0), v[:, key])
        weight = weights[:, :, key, None]
        total += np.where(weight > 0, weight * np.repeat(row, len(weights) // len(v), axis=0)[:, None], 0)
    return total


HALF = Tolerance(1e-3, 1e-4, 1e-4, "Q is rounded to K's partner type, an F16 V is summed in F16 over the keys")
EIGHTH = Tolerance(nmse=5e-4, reason="Q is quantised to K's partner type before the scores")


def attention(
    id: str, q: Operand, k: Operand, v: Operand, mask: Operand | None = None, sinks: Operand | None = None, **params: float
) -> Case:
    """Return a case whose destination follows from its operands; scale is 1/sqrt(dk) unless given."""
    dk, n, heads, batch = q.quad
    dst = Operand("F32", (v.ne[0], heads, n, batch))
    scale = {"scale": 1 / max(dk, 1) ** 0.5, "max_bias": 0.0, "logit_softcap": 0.0}
    plain = k.dtype in ("F32", "F16", "BF16") and v.dtype in ("F32", "F16", "BF16")
    return Case(id, dst, (q, k, v, mask, sinks), scale | params, HALF if plain else EIGHTH)


def cases() -> Iterator[Case]:
    """Types, head sizes, shared heads, masks, slopes, cap, sinks, one query and many, views, hidden keys, special values."""
    q, k, v = Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 17, 2))
    for name in WEIGHTS:
        kv, gentle = weights(name, (256, 9)), 1 / 512 if name.startswith("IQ") else 1 / 16
        yield attention(f"{name.lower()}", Operand("F32", (256, 2, 2)), kv, kv, scale=gentle)
    yield attention("k-q8_0-v-f16", q, Operand("Q8_0", (32, 17, 2)), v)
    yield attention("k-f16-v-q4_0", q, k, Operand("Q4_0", (32, 17, 2)))
    yield attention("k-bf16-v-f32", q, Operand("BF16", (32, 17, 2)), Operand("F32", (32, 17, 2)))
    for dk, dv in ((1, 1), (8, 8), (40, 40), (64, 64), (80, 80), (192, 128), (256, 256), (72, 24)):
        yield attention(f"dk{dk}-dv{dv}", Operand("F32", (dk, 2, 2)), Operand("F16", (dk, 33)), Operand("F16", (dv, 33)))
    yield from _mask_cases(q, k, v)
    yield from _many_query_cases()
    yield from _view_cases()
    yield from _odd_cases(q, k, v)


def _mask_cases(q: Operand, k: Operand, v: Operand) -> Iterator[Case]:
    mask, far, sinks = Operand("F16", (17, 3), fill="mask"), Operand("F16", (17, 3), fill="uniform:-8:0"), Operand("F32", (4,))
    yield attention("mask", q, k, v, mask)
    yield attention("mask-values", q, k, v, Operand("F16", (17, 3)))
    yield attention("mask-padded", q, k, v, Operand("F16", (32, 64), fill="mask"))
    yield attention("mask-heads", q, k, v, Operand("F16", (17, 3, 2), fill="mask"))
    yield attention("alibi", q, k, v, far, max_bias=8.0)
    yield attention("alibi-heads", q, k, v, Operand("F16", (17, 3, 4), fill="uniform:-8:0"), max_bias=2.0)
    yield attention("alibi-heads-shared", q, k, v, Operand("F16", (17, 3, 2), fill="uniform:-8:0"), max_bias=4.0)
    six = Operand("F32", (32, 3, 6))
    yield attention("alibi-six", six, k, v, far, max_bias=8.0)
    yield attention("softcap", q, k, v, mask, logit_softcap=2.0)
    yield attention("softcap-alibi-sinks", q, k, v, far, sinks, logit_softcap=10.0, max_bias=8.0)
    yield attention("sinks", q, k, v, None, sinks)
    yield attention("sinks-mask", q, k, v, mask, sinks)
    yield attention("masked-out", q, k, v, Operand("F16", (17, 3), fill="values:-inf"))
    yield attention("masked-out-sinks", q, k, v, Operand("F16", (17, 3), fill="values:-inf"), sinks)
    batch = Operand("F32", (32, 3, 4, 2))
    kv = Operand("F16", (32, 17, 2, 2))
    yield attention("mask-batch", batch, kv, kv, Operand("F16", (17, 3, 1, 2), fill="mask"))
    yield attention("mask-batch-shared", batch, kv, kv, Operand("F16", (17, 3, 2, 1), fill="mask"))


def _many_query_cases() -> Iterator[Case]:
    """64 queries and more, and one query over 512 keys and more: upstream's other two ways."""
    for name in ("F32", "F16"):
        kv, mask = Operand(name, (32, 70)), Operand("F16", (70, 67), fill="mask")
        q, sinks = Operand("F32", (32, 64, 2)), Operand("F32", (2,))
        full = Operand(name, (32, 128))
        yield attention(f"queries-64-{name.lower()}", q, kv, kv, None, sinks)
        yield attention(f"queries-64-softcap-{name.lower()}", q, full, full, None, sinks, logit_softcap=4.0)
        yield attention(f"queries-67-{name.lower()}", Operand("F32", (32, 67, 2)), kv, kv, mask)
        long = Operand(name, (16, 515, 2))
        yield attention(f"keys-515-{name.lower()}", Operand("F32", (16, 1, 4)), long, long)
        hidden = Operand("F16", (515, 1), fill="mask")
        yield attention(f"keys-515-mask-{name.lower()}", Operand("F32", (16, 1, 4)), long, long, hidden, Operand("F32", (4,)))


def _view_cases() -> Iterator[Case]:
    cache = Operand("F16", (32, 17, 2), nb=(2, 128, 64, 2176))
    yield attention("kv-permuted", Operand("F32", (32, 3, 4), nb=(4, 512, 128, 1536)), cache, cache)
    gaps = Operand("F32", (32, 17, 2), nb=(4, 160, 2800, 6000))
    yield attention("kv-gaps", Operand("F32", (32, 3, 4), nb=(4, 144, 448, 2000)), gaps, gaps)
    blocks = Operand("Q8_0", (32, 17, 2), nb=(34, 68, 34, 1156))
    yield attention("kv-q8_0-permuted", Operand("F32", (32, 3, 4)), blocks, blocks)
    yield attention("v-longer", Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 20, 2)))
    yield attention("v-heads-differ", Operand("F32", (32, 3, 4)), Operand("F16", (32, 17, 2)), Operand("F16", (32, 17, 4)))


def _odd_cases(q: Operand, k: Operand, v: Operand) -> Iterator[Case]:
    yield attention("prec-f32", q, k, v, prec=10)
    yield attention("scale-zero", q, k, v, scale=0.0)
    yield attention("scale-large", q, k, v, scale=8.0)
    sound, hides = Operand("F32", (1, 8, 2)), Operand("F16", (8, 3), fill="values:0,1,0,0,-inf,0,2,0,1,0,0,0,0,1,0,2")
    for value in ("nan", "inf"):
        numbers = f"0.5,-1,2,1,1,-2,1.5,1,0.5,-1,2,1,{value},-2,1.5,1"  # key 4 of head 1, which only query 1 sees
        spoilt = Operand("F32", (1, 8, 2), fill=f"values:{numbers}")
        yield attention(f"spoilt-v-{value}", Operand("F32", (1, 3, 4)), sound, spoilt, hides)
    nan = Operand("F32", (1, 8, 2), fill="values:0.5,-1,2,1,1,-2,1.5,1,0.5,-1,2,1,nan,-2,1.5,1")
    yield attention("spoilt-k-nan", Operand("F32", (1, 3, 4)), nan, sound, hides)
    yield attention("no-keys", q, Operand("F16", (32, 0, 2)), Operand("F16", (32, 0, 2)))
    yield attention("no-queries", Operand("F32", (32, 0, 4)), k, v)


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
    cases=cases,
    tolerance=Tolerance(1e-3, 1e-4, 5e-4, "Q is rounded or quantised to K's partner type, an F16 V is summed in F16"),
)
