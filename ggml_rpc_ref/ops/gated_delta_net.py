"""GATED_DELTA_NET: linear attention by the delta rule: the state decays and is corrected by its prediction error.

For sequence b, head h, and tokens t in order; j counts values, i keys; the state is kept with the keys innermost:

    state[j][i] *= exp(g[i])                                      (one g for all i where g has one element)
    error[j] = (v[j] - sum over i of state[j][i] * k[i]) * beta
    state[j][i] += error[j] * k[i]
    out[j] = sum over i of state[j][i] * q[i] / sqrt(S)

Sources in slot order: q, k F32, ne = (S, Hq, T, Bq), ne = (S, Hk, T, Bk); v F32, ne = (S, H, T, B): dense rows. Head h uses q's
head h mod Hq (Hq need not divide H), sequence b uses q's sequence b div (B / Bq); likewise k's. g F32, contiguous, ne = (1 or
S, H, T, B). beta F32, contiguous, ne = (1, H, T, B). state F32, contiguous, S*S*H*B elements. dst: F32, contiguous, ne = (S*H,
T*B + S*B): all out in the order of v, then the final states. Without tokens the states are copied.

Source: ggml_gated_delta_net in ggml.c; ggml_compute_forward_gated_delta_net_one_chunk in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Source, later
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.recurrence import SNAPSHOTS, TOLERANCE, keep, recurrence_cost, snapshots
from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array

Q, K, V, G, BETA, STATE = range(6)


def shape(node: Node) -> None:
    """Refuse dimensions that do not go together, heads or sequences that do not divide, gaps."""
    (size, heads, _, sequences), state = node.source(V).ne, node.source(STATE)
    wanted = size * size * heads * sequences
    node.require(state.nelements == wanted, f"a state of {wanted}", state.ne, at=state)
    _check(node, 1)


def shape_with_slots(node: Node) -> None:
    """Refuse what `shape` does; the state has K slots."""
    (size, heads, _, sequences), state = node.source(V).ne, node.source(STATE)
    ne = (size * size * heads, state.ne[1], sequences, 1)
    node.require(state.ne == ne and state.ne[1] >= 1, f"state.ne ({ne[0]}, K, {sequences})", state.ne, at=state)
    _check(node, state.ne[1])


def shape_with_snapshots(node: Node) -> None:
    """Refuse what `shape` does; K is a parameter."""
    (size, heads, _, sequences), state = node.source(V).ne, node.source(STATE)
    ne = (size, size, heads, sequences)
    node.require(state.ne == ne, f"state.ne {ne}", state.ne, at=state)
    _check(node, snapshots(node))


def _check(node: Node, count: int) -> None:
    q, k, v, g, beta, state = (node.source(slot) for slot in range(6))
    size, heads, tokens, sequences = v.ne
    for name, tensor in (("q", q), ("k", k)):
        node.require((tensor.ne[0], tensor.ne[2]) == (size, tokens), f"{name}.ne ({size}, .., {tokens}, ..)", tensor.ne, at=tensor)
        divides = tensor.ne[1] >= 1 and tensor.ne[3] >= 1 and sequences % tensor.ne[3] == 0
        node.require(divides, f"{name} of some heads and of sequences that divide {sequences}", tensor.ne, at=tensor)
    require_contiguous_rows(node, q, k, v)
    node.require(g.ne in ((1, *v.ne[1:]), v.ne), f"g.ne (1 or {size}, {heads}, {tokens}, {sequences})", g.ne, at=g)
    node.require(beta.ne == (1, *v.ne[1:]), f"beta.ne (1, {heads}, {tokens}, {sequences})", beta.ne, at=beta)
    ne = (size * heads, (tokens + count * size) * sequences, 1, 1)
    node.require(node.dst.ne == ne, f"ne {ne}", node.dst.ne)
    for tensor in (g, beta, state, node.dst):
        node.require(tensor.is_contiguous, "contiguous g, beta, state and result", tensor.nb, at=tensor)


def oracle(node: Node) -> None:
    """Keep the final states."""
    state = node.source(STATE).array
    _compute(node, state, 1)


def oracle_with_slots(node: Node) -> None:
    """Begin with the states in slot 0, keep the last ones, the newest last."""
    state = node.source(STATE).array[0]
    _compute(node, state[:, 0], state.shape[1], newest_first=False)


def oracle_with_snapshots(node: Node) -> None:
    """Keep the last states, the newest first."""
    _compute(node, node.source(STATE).array, snapshots(node))


@np.errstate(all="ignore")
def _compute(node: Node, start: Array, count: int, *, newest_first: bool = True) -> None:
    """Compute the formula token by token, all sequences and heads at once, in float64."""
    if node.dst.nelements == 0:
        return
    q, k, v, g, beta, _ = (node.source(slot).array for slot in range(6))
    sequences, tokens, heads, size = v.shape
    state = start.reshape(sequences, heads, size, size).astype(np.float64)
    outputs, rows = np.empty(v.shape, np.float32), node.dst.array[0, 0]
    states = rows[sequences * tokens :].reshape(count, -1)
    states = states if newest_first else states[::-1]
    if tokens == 0 and count == 1:
        keep(states, state, 0)
    for t in range(tokens):
        checkpoint()
        key, query = (_spread(x[:, t], sequences, heads) for x in (k, q))
        state = state * np.exp(g[:, t].astype(np.float64))[..., None, :]
        error = (v[:, t] - np.einsum("bhji,bhi->bhj", state, key)) * beta[:, t]
        state = state + error[..., None] * key[..., None, :]
        outputs[:, t] = np.einsum("bhji,bhi->bhj", state, query) / np.sqrt(size)
        keep(states, state, tokens - 1 - t)
    rows[: sequences * tokens] = outputs.reshape(sequences * tokens, heads * size)


def _spread(x: Array, sequences: int, heads: int) -> Array:
    """Return the key or query of every sequence and head, float64, from one token's, which several of them share."""
    # upstream's iq1 = iv1 % neq1 but iq3 = iv3 / rq3: heads share in turn, sequences in runs
    of_sequence = np.arange(sequences) // (sequences // len(x))
    return np.asarray(x[of_sequence[:, None], np.arange(heads) % x.shape[1]], np.float64)


def cost(node: Node) -> Cost:
    """Return the cost: the states as float64, several times over, and a loop over the tokens."""
    size, heads, tokens, sequences = node.source(V).ne
    return recurrence_cost(node, size * size * heads * sequences, tokens)


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
    tolerance=TOLERANCE,
    cost=cost,
    later=(
        later("GATED_DELTA_NET.state-slots", shape=shape_with_slots, oracle=oracle_with_slots),
        later("GATED_DELTA_NET.snapshots", reads=(SNAPSHOTS,), shape=shape_with_snapshots, oracle=oracle_with_snapshots),
    ),
)
