"""FLASH_ATTN_BACK: the gradients of attention with respect to Q, K and V, packed into one row.

For each batch entry and head h, with K and V of head h mod (number of K's heads):

    P = softmax(Q K^T / sqrt(d), where masked: of query j only keys i <= keys - queries + j)
    dP = dO V,   dS = P * (dP - rowsum(P * dP)) / sqrt(d)
    dQ = dS K,   dK = sum over the heads that share K of dS^T Q,   dV = sum over them of dO^T P

src0: Q ne = (d, queries, heads, batch). src1: K ne = (d, keys, heads / r, batch), keys >= queries. src2: V, transposed: ne =
(keys, d, heads / r, batch). src3: dO, the gradient of the result, Q's ne. All F32, dense rows (dO: any strides). dst: F32, one
row without gaps: dQ, dK, dV, each as its source would lie contiguously and padded with zeros to 16 bytes. masked is 0 or 1.

ggml's constructor of this op aborts ("adapt to flash_attn_ext changes"), so no stock client sends it; the kernel exists, and
this is what it computes. With a shared K and batch > 1 that kernel steps too far in dK and dV and writes out of bounds; the
oracle does not.

Source: ggml_compute_forward_flash_attn_back_f32 in ggml-cpu/ops.cpp, ggml_flash_attn_back in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.matmul import require_ascending_result
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import F32Array, Tensor

ALIGNMENT = 16
"""GGML_MEM_ALIGN of 64-bit builds, in bytes."""


def shape(node: Node) -> None:
    """Refuse sources that do not fit together, fewer keys than queries, a result of another length, gaps, an unknown masked."""
    q, k, v, grad = (node.source(i) for i in range(4))
    d, queries, heads, batch = q.ne
    _, keys, shared, _ = k.ne
    node.require(shared > 0 and heads % shared == 0, f"heads of K to divide {heads}", shared, at=k)
    node.require(k.ne == (d, keys, shared, batch), f"K of ne ({d}, keys, heads, {batch})", k.ne, at=k)
    node.require(v.ne == (keys, d, shared, batch), f"V of ne {(keys, d, shared, batch)}", v.ne, at=v)
    node.require(grad.ne == q.ne, f"a gradient of ne {q.ne}", grad.ne, at=grad)
    node.require(keys >= queries, f"at least {queries} keys", keys, at=k)
    length = sum(_padded(t) for t in (q, k, v))
    node.require(node.dst.ne == (length, 1, 1, 1), f"{length} elements", node.dst.ne)
    require_dense_rows(node, q, k, v)
    require_ascending_result(node)
    node.require(node.i32("masked") in (0, 1), "masked 0 or 1", node.i32("masked"))


def _padded(tensor: Tensor) -> int:
    """Return the elements that a gradient takes up in the result."""
    # rounded up to whole multiples of ALIGNMENT, and back from bytes to floats
    return -(-4 * tensor.nelements // ALIGNMENT) * ALIGNMENT // 4


def oracle(node: Node) -> None:
    """Compute query by query, each with the keys that it sees; write at the end, since dst may share memory with a source."""
    q, k, v, grad = (node.source(i).array for i in range(4))
    queries, keys = q.shape[2], k.shape[2]
    total = np.zeros(node.dst.ne[0], np.float32)
    grad_q, grad_k, grad_v = _gradients(node, total)
    with np.errstate(all="ignore"):
        for i3, head, query in np.ndindex(*q.shape[:3]):
            # heads of K in turn, unlike FLASH_ATTN_EXT, where successive heads share: upstream's iq2 = ik2 + irep*nek2
            at = i3, head % k.shape[1]
            seen = keys - queries + query + 1 if node.i32("masked") else keys
            row, out, key = q[i3, head, query], grad[i3, head, query], k[at][:seen]
            weights, scores = _attention(row, key, out @ v[at][:, :seen])
            grad_q[i3, head, query] = scores @ key
            grad_k[at][:seen] += np.outer(scores, row)
            grad_v[at][:, :seen] += np.outer(out, weights)
    node.dst.store(total)


def _gradients(node: Node, total: F32Array) -> list[F32Array]:
    """Return views of the result's three parts in their sources' shapes."""
    parts, start = [], 0
    for source in (node.source(0), node.source(1), node.source(2)):
        parts.append(total[start : start + source.nelements].reshape(source.shape))
        start += _padded(source)
    return parts


def _attention(q: F32Array, k: F32Array, weight_gradient: F32Array) -> tuple[F32Array, F32Array]:
    """Return the weights of the keys that a query sees, and the gradient of its scores."""
    scale = np.float32(1) / np.sqrt(np.float32(len(q)))
    scores = k @ q * scale
    weights = np.exp(scores - np.max(scores))
    weights *= np.float32(1 / np.sum(weights, dtype=np.float64))
    return weights, weights * (weight_gradient - np.dot(weights, weight_gradient)) * scale


def cost(node: Node) -> Cost:
    """Return the cost: the gradients, and a loop over the queries that looks at all keys for each."""
    q, k = node.source(0), node.source(1)
    products = 6 * q.ne[0] * k.ne[1]
    return Cost(4 * node.dst.nelements + 24 * k.ne[1] * max(1, q.ne[0]), elements(node) + q.nrows * (products + 8 * CALL))


OP = Op(
    name="FLASH_ATTN_BACK",
    sources=(
        Source("q", ("F32",), "ne = (d, queries, heads, batch)"),
        Source("k", ("F32",), "ne = (d, keys, heads / r, batch)"),
        Source("v", ("F32",), "ne = (keys, d, heads / r, batch)"),
        Source("grad", ("F32",), "ne = (d, queries, heads, batch), the gradient of the result"),
    ),
    types=("F32",),
    params=(Param("masked", "i32", 0, "1: a query sees no keys that come after it"),),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-4, 1e-5, 1e-10, "float32 sums in another order"),
    cost=cost,
)
