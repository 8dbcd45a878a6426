"""GATED_DELTA_NET: linear attention by the delta rule: the state forgets, and learns what it predicts wrongly.

For sequence b, head h, and tokens t in order; j counts values, i keys; the state is kept with the keys innermost:

    state[j][i] *= exp(g[i])                                      (one g for all i where g has one element)
    error[j] = (v[j] - sum over i of state[j][i] * k[i]) * beta
    state[j][i] += error[j] * k[i]
    out[j] = sum over i of state[j][i] * q[i] / sqrt(S)

Sources in slot order: q, k F32, ne = (S, Hq, T, Bq), ne = (S, Hk, T, Bk); v F32, ne = (S, H, T, B): elements of a row
neighbours, rows anywhere. Head h uses q's head h mod Hq (Hq need not divide H), sequence b uses q's sequence b div (B / Bq);
likewise k's. g F32, contiguous, ne = (1 or S, H, T, B). beta F32, contiguous, ne = (1, H, T, B). state F32, contiguous, S*S*H*B
elements. dst: F32, contiguous, ne = (S*H, T*B + S*B): all out in the order of v, then the final states. Without tokens the
states are copied. 3.6.1 has no op_params here; K, the number of snapshots, came later.

Source: ggml_gated_delta_net in ggml.c; ggml_compute_forward_gated_delta_net_one_chunk in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.recurrence import TOLERANCE
from ggml_rpc_ref.tensor import Array, Quad

Q, K, V, G, BETA, STATE = range(6)


def shape(node: Node) -> None:
    """Refuse dimensions that do not go together, heads or sequences that do not divide, gaps."""
    q, k, v, g, beta, state = (node.source(slot) for slot in range(6))
    size, heads, tokens, sequences = v.ne
    for name, tensor in (("q", q), ("k", k)):
        node.require((tensor.ne[0], tensor.ne[2]) == (size, tokens), f"{name}.ne ({size}, .., {tokens}, ..)", tensor.ne)
        divides = tensor.ne[1] >= 1 and tensor.ne[3] >= 1 and sequences % tensor.ne[3] == 0
        node.require(divides, f"{name} of some heads and of sequences that divide {sequences}", tensor.ne)
    for tensor in (q, k, v):
        node.require(tensor.rows_are_contiguous, "elements of a row to be neighbours", tensor.nb)
    node.require(g.ne in ((1, *v.ne[1:]), v.ne), f"g.ne (1 or {size}, {heads}, {tokens}, {sequences})", g.ne)
    node.require(beta.ne == (1, *v.ne[1:]), f"beta.ne (1, {heads}, {tokens}, {sequences})", beta.ne)
    node.require(state.nelements == size * size * heads * sequences, f"a state of {size * size * heads * sequences}", state.ne)
    ne = (size * heads, (tokens + size) * sequences, 1, 1)
    node.require(node.dst.ne == ne, f"ne {ne}", node.dst.ne)
    for tensor in (g, beta, state, node.dst):
        node.require(tensor.is_contiguous, "contiguous g, beta, state and result", tensor.nb)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute the formula token by token, all sequences and heads at once, in float64."""
    if node.dst.nelements == 0:
        return
    q, k, v, g, beta, _ = (node.source(slot).array for slot in range(6))
    sequences, tokens, heads, size = v.shape
    state = node.source(STATE).array.reshape(sequences, heads, size, size).astype(np.float64)
    outputs = np.empty(v.shape, np.float32)
    for t in range(tokens):
        key, query = (_spread(x[:, t], sequences, heads) for x in (k, q))
        state = state * np.exp(g[:, t].astype(np.float64))[..., None, :]
        error = (v[:, t] - np.einsum("bhji,bhi->bhj", state, key)) * beta[:, t]
        state = state + error[..., None] * key[..., None, :]
        outputs[:, t] = np.einsum("bhji,bhi->bhj", state, query) / np.sqrt(size)
    rows = node.dst.array[0, 0]
    rows[: sequences * tokens] = outputs.reshape(sequences * tokens, heads * size)
    rows[sequences * tokens :] = state.reshape(sequences * size, heads * size)


def _spread(x: Array, sequences: int, heads: int) -> Array:
    """Return the key or query of every sequence and head, float64, from one token of the fewer ones that there are."""
    of_sequence = np.arange(sequences) // (sequences // len(x))
    return np.asarray(x[of_sequence[:, None], np.arange(heads) % x.shape[1]], np.float64)


def _case(
    name: str, size: int, heads: int, tokens: int, sequences: int, *, vector: bool = False, few: tuple[int, int] | None = None,
    permuted: bool = False,
) -> Case:  # fmt: skip
    """Return a case; few: heads and sequences of q and k; permuted: heads and tokens of q, k and v change places in memory."""

    def stream(count: int, batch: int, fill: str) -> Operand:
        nb: Quad = (4, 4 * size * tokens, 4 * size, 4 * size * tokens * count)
        return Operand("F32", (size, count, tokens, batch), nb if permuted else None, fill)

    key = stream(*(few or (heads, sequences)), f"normal:{size**-0.5}")
    gate = Operand("F32", (size if vector else 1, heads, tokens, sequences), fill="uniform:-2:0")
    beta = Operand("F32", (1, heads, tokens, sequences), fill="uniform:0:1")
    state = Operand("F32", (size * size * heads, sequences))
    dst = Operand("F32", (size * heads, (tokens + size) * sequences))
    return Case(name, dst, (key, key, stream(heads, sequences, "normal"), gate, beta, state))


def cases() -> Iterator[Case]:
    """One gate and a gate per key, head sizes, heads and sequences shared, permuted memory, no tokens."""
    for vector, permuted in product((False, True), (False, True)):
        words = ("vector-gate" if vector else "one-gate") + ("-permuted" if permuted else "")
        yield _case(words, 16, 4, 5, 2, vector=vector, permuted=permuted)
        yield _case(f"{words}-shared-heads", 16, 6, 3, 1, vector=vector, permuted=permuted, few=(2, 1))
        yield _case(f"{words}-shared-sequences", 8, 2, 3, 4, vector=vector, permuted=permuted, few=(2, 2))
    for size in (1, 7, 33, 64):
        yield _case(f"size-{size}", size, 2, 3, 1)
        yield _case(f"size-{size}-vector-gate", size, 2, 3, 1, vector=True)
    yield _case("one-token", 32, 4, 1, 1)
    yield _case("many-tokens", 16, 1, 67, 1)
    yield _case("heads-that-do-not-divide", 8, 5, 3, 1, few=(2, 1))
    yield _case("no-tokens", 8, 2, 0, 2)


OP = Op(
    name="GATED_DELTA_NET",
    sources=(
        Source("q", ("F32",), "ne = (S, Hq, T, Bq)"),
        Source("k", ("F32",), "ne = (S, Hk, T, Bk)"),
        Source("v", ("F32",), "ne = (S, H, T, B)"),
        Source("g", ("F32",), "ne = (1 or S, H, T, B), its exponential multiplies the state"),
        Source("beta", ("F32",), "ne = (1, H, T, B)"),
        Source("state", ("F32",), "S*S*H*B elements"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=TOLERANCE,
)
