"""LIGHTNING_INDEXER: scores by which DeepSeek's sparse attention picks keys: weighted, rectified products of all heads.

    dst[key, t, 0, s] = mask[key, t, 0, s mod ne3] + sum over h of max(0, q[.., h, t, s] · k[.., 0, key, s]) * weights[h, t, 0, s]

q: F32, ne = (n, heads, tokens, streams). k: F32 or any type that can be turned into float32, ne = (n, 1, keys, streams). weights:
F32, ne = (heads, tokens, 1, streams). mask: F16, ne = (keys, tokens, 1, m), m divides streams. dst: F32, ne = (keys, tokens, 1,
streams). All rows are dense and may lie anywhere. A product that is NaN counts as 0. Products and sums are in float32.

Source: ggml_lightning_indexer in ggml.c; ggml_compute_forward_lightning_indexer in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import part, rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import Tolerance

Q, KEYS, WEIGHTS, MASK = range(4)


def shape(node: Node) -> None:
    """Refuse dimensions that do not go together, and rows with gaps or of broken blocks."""
    q, k, weights, mask = (node.source(slot) for slot in range(4))
    (n, heads, tokens, streams), keys = q.ne, k.ne[2]
    node.require(k.ne == (n, 1, keys, streams), f"k.ne ({n}, 1, keys, {streams})", k.ne, at=k)
    node.require(weights.ne == (heads, tokens, 1, streams), f"weights.ne ({heads}, {tokens}, 1, {streams})", weights.ne, at=weights)
    node.require(mask.ne[:3] == (keys, tokens, 1), f"mask.ne ({keys}, {tokens}, 1, ..)", mask.ne, at=mask)
    node.require(mask.ne[3] > 0 and streams % mask.ne[3] == 0, f"mask.ne[3] to divide {streams}", mask.ne[3], at=mask)
    node.require(n % k.dtype.block == 0, f"k.ne[0] a multiple of {k.dtype.block}", n, at=k)
    node.require(node.dst.ne == (keys, tokens, 1, streams), f"ne ({keys}, {tokens}, 1, {streams})", node.dst.ne)
    require_dense_rows(node, q, k, weights, mask, node.dst)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Score some keys of a stream for some tokens at a time."""
    n, heads, tokens, streams = node.source(Q).ne
    keys = node.source(KEYS).ne[2]
    for s in range(streams):
        for some in spans(keys, rows_per_slab(4 * max(n, heads))):
            k = part(node.source(KEYS), (slice(s, s + 1), some, slice(0, 1))).values()[0, :, 0]
            for few in spans(tokens, rows_per_slab(8 * heads * len(k))):
                _score(node, s, few, some, k)


def _score(node: Node, s: int, tokens: slice, keys: slice, k: np.ndarray) -> None:
    q, weights, mask = (node.source(slot).array for slot in (Q, WEIGHTS, MASK))
    products = q[s, tokens] @ k.T  # (tokens, heads, keys)
    # where, not maximum: upstream's MAX gives 0 for a NaN
    products = np.where(products > 0, products, np.float32(0))
    scores = weights[s, 0, tokens, None] @ products
    node.dst.array[s, 0, tokens, keys] = scores[:, 0] + mask[s % len(mask), 0, tokens, keys].astype(np.float32)


def cost(node: Node) -> Cost:
    """Return the cost of the products, and of one token's with one key, or one key's elements."""
    n, heads, tokens, streams = node.source(Q).ne
    keys = node.source(KEYS).ne[2]
    some = rows_per_slab(4 * max(n, heads))
    calls = streams * -(-keys // some) * (1 + -(-tokens // rows_per_slab(8 * heads * min(keys, some))))
    return Cost(16 * max(n, heads), elements(node) + streams * tokens * keys * heads * n // PRODUCTS + calls * CALL)


OP = Op(
    name="LIGHTNING_INDEXER",
    sources=(
        Source("q", ("F32",), "ne = (n, heads, tokens, streams)"),
        Source("k", FLOATS + READABLE_BLOCKS, "ne = (n, 1, keys, streams)"),
        Source("weights", ("F32",), "ne = (heads, tokens, 1, streams)"),
        Source("mask", ("F16",), "ne = (keys, tokens, 1, m), m divides streams"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-5, 1e-10, "float32 sums of products of both signs, in another order"),
    cost=cost,
)
