"""What RWKV_WKV6, GATED_LINEAR_ATTN and RWKV_WKV7 share: a square state per head that every token reads and changes.

Their streams (k, v, r …) are F32, contiguous, ne = (S, H, T, ..): S elements per head, H heads, T tokens; the tokens are n_seqs
sequences of T / n_seqs tokens, one after the other. Of a stream with ne[3] above 1 the first T tokens are read. The state is F32,
contiguous, of S*S*H*n_seqs elements: for each sequence and head S rows of S elements; its ne[1] is n_seqs. dst is F32, contiguous,
ne = (S*H, T + S*n_seqs): T rows of outputs, then the final states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array

TOLERANCE = Tolerance(1e-5, 1e-5, 1e-10, "a float32 state rounded at every token, and sums in another order")

SNAPSHOTS = Param("snapshots", "i32", 0, "K: after how many of the last tokens the states are kept, at least 1")


def snapshots(node: Node) -> int:
    """Return after how many of the last tokens a node keeps the states.

    Raises:
        Violation: graph.shape, where it is none.
    """
    count = node.i32("snapshots") if node.op.reads("snapshots") else 1
    node.require(count >= 1, "at least one snapshot", count)
    return count


def keep(states: Array, state: Array, age: int) -> None:
    """Write a state into its place among the snapshots, if it is one of the last ones.

    Args:
        states: the snapshots, shape (K, elements of a state), the newest first.
        state: as it is after a token.
        age: how many tokens come after that.
    """
    if age < len(states):
        states[age] = state.reshape(-1)


Step = Callable[[Array, list[Array]], tuple[Array, Array]]
"""(state (n_seqs, H, S, S), one token of each stream (n_seqs, H, S)) -> (new state, output (n_seqs, H, S)), all float64."""

STATE_SOURCE = Source("state", ("F32",), "S*S*H*n_seqs elements, ne[1] = n_seqs")


def stream(name: str) -> Source:
    """Return the row of a source that has a value per element, head and token."""
    return Source(name, ("F32",), "ne = (S, H, T, ..)")


def require_recurrence(node: Node, streams: Sequence[int], state_slot: int) -> None:
    """Refuse streams of unequal dimensions, a state or result of another size, tokens that do not divide, gaps."""
    size, heads, tokens, _ = ne = node.source(streams[0]).ne
    for slot in streams:
        tensor = node.source(slot)
        fits = tensor.ne[:3] == ne[:3] and tensor.ne[3] >= 1
        node.require(fits, f"src{slot}.ne ({size}, {heads}, {tokens}, ..)", tensor.ne, at=tensor)
        node.require(tensor.is_contiguous, f"src{slot} to be contiguous", tensor.nb, at=tensor)
    state, dst = node.source(state_slot), node.dst
    sequences = state.ne[1]
    require_contiguous(node, state, dst)
    node.require(
        state.nelements == size * size * heads * sequences, f"a state of {size * size * heads} * ne[1] elements", state.ne, at=state
    )
    result = (size * heads, tokens + size * sequences, 1, 1)
    node.require(dst.ne == result, f"ne {result}", dst.ne)
    node.require(
        sequences >= 1 and tokens >= 1 and tokens % sequences == 0, f"sequences that divide {tokens} tokens", sequences, at=state
    )


@np.errstate(all="ignore")
def run_tokens(node: Node, streams: Sequence[int], state_slot: int, step: Step) -> None:
    """Walk through the tokens, all sequences and heads at once, in float64; write outputs and final states."""
    size, heads, tokens, _ = node.source(streams[0]).ne
    if node.dst.nelements == 0:
        return
    sequences = node.source(state_slot).ne[1]
    state = node.source(state_slot).array.reshape(sequences, heads, size, size).astype(np.float64)
    values = [node.source(slot).array[0].reshape(sequences, -1, heads, size) for slot in streams]
    outputs = np.empty(values[0].shape, np.float32)
    for t in range(tokens // sequences):
        checkpoint()
        state, outputs[:, t] = step(state, [value[:, t].astype(np.float64) for value in values])
    rows = node.dst.array[0, 0]
    rows[:tokens] = outputs.reshape(tokens, size * heads)
    rows[tokens:] = state.reshape(sequences * size, size * heads)


def recurrence_cost(node: Node, state: int, tokens: int) -> Cost:
    """Return the cost of walking through tokens with a state of so many elements: float64 copies of it, a loop of few calls."""
    return Cost(48 * state + 8 * node.dst.nelements, elements(node) + tokens * (8 * state + 8 * CALL))
