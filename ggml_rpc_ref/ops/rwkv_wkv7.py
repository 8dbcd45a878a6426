"""RWKV_WKV7: the attention of RWKV 7: a state per head that decays by key, is corrected along b, accumulates key times value.

For each token, i counting values and j keys:

    sa[i] = sum over j of a[j] * state[i][j]
    state[i][j] = state[i][j] * w[j] + v[i] * k[j] + sa[i] * b[j]
    out[i] = sum over j of r[j] * state[i][j]

Sources in slot order: r, w, k, v, a, b, state. Their dimensions and the result: see recurrence.py. S may be any here;
upstream's kernels on x86 read and write beyond a row where S is not a multiple of 32 (AVX2) or 64 (AVX-512), so only such sizes
can be compared.

Source: ggml_rwkv_wkv7 in ggml.c; ggml_compute_forward_rwkv_wkv7_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op
from ggml_rpc_ref.ops.shared.recurrence import STATE_SOURCE, TOLERANCE, recurrence_cost, require_recurrence, run_tokens, stream
from ggml_rpc_ref.tensor import Array

STREAMS = (0, 1, 2, 3, 4, 5)

STATE = 6


def shape(node: Node) -> None:
    """Refuse streams, a state or a result of other dimensions."""
    require_recurrence(node, STREAMS, STATE)


def oracle(node: Node) -> None:
    """Compute the formula token by token."""

    def step(state: Array, token: list[Array]) -> tuple[Array, Array]:
        r, w, k, v, a, b = token
        correction = np.einsum("nhj,nhij->nhi", a, state)
        state = state * w[..., None, :] + v[..., None] * k[..., None, :] + correction[..., None] * b[..., None, :]
        return state, np.einsum("nhj,nhij->nhi", r, state)

    run_tokens(node, STREAMS, STATE, step)


def cost(node: Node) -> Cost:
    """Return the cost: the states as float64, several times over, and a loop over the tokens."""
    return recurrence_cost(node, node.source(STATE).nelements, node.source(2).ne[2])


OP = Op(
    name="RWKV_WKV7",
    sources=(
        stream("r"),
        stream("w"),
        stream("k"),
        stream("v"),
        stream("a"),
        stream("b"),
        STATE_SOURCE,
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=TOLERANCE,
    cost=cost,
)
