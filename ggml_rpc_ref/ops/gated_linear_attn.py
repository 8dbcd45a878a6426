"""GATED_LINEAR_ATTN: linear attention with a gate per key: a state per head that decays and accumulates key times value.

For each token, i counting keys and j values:

    state[i][j] = state[i][j] * g[i] + k[i] * v[j]
    out[j] = sum over i of q[i] * scale * state[i][j]

Sources in slot order: k, v, q, g, state. Their dimensions and the result: see recurrence.py.

Source: ggml_gated_linear_attn in ggml.c; ggml_compute_forward_gla_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Param
from ggml_rpc_ref.ops.shared.recurrence import STATE_SOURCE, TOLERANCE, recurrence_cost, require_recurrence, run_tokens, stream
from ggml_rpc_ref.tensor import Array

STREAMS = (0, 1, 2, 3)

STATE = 4


def shape(node: Node) -> None:
    """Refuse streams, a state or a result of other dimensions."""
    require_recurrence(node, STREAMS, STATE)


def oracle(node: Node) -> None:
    """Compute the formula token by token."""
    scale = np.float32(node.f32("scale"))

    def step(state: Array, token: list[Array]) -> tuple[Array, Array]:
        k, v, q, g = token
        state = state * g[..., None] + k[..., None] * v[..., None, :]
        scaled = q.astype(np.float32) * scale  # a float upstream: a huge scale overflows here
        return state, np.einsum("nhi,nhij->nhj", scaled.astype(np.float64), state)

    run_tokens(node, STREAMS, STATE, step)


def cost(node: Node) -> Cost:
    """Return the cost: the states as float64, several times over, and a loop over the tokens."""
    return recurrence_cost(node, node.source(STATE).nelements, node.source(2).ne[2])


OP = Op(
    name="GATED_LINEAR_ATTN",
    sources=(
        stream("k"),
        stream("v"),
        stream("q"),
        stream("g"),
        STATE_SOURCE,
    ),
    types=("F32",),
    params=(Param("scale", "f32", 0, "multiplies q"),),
    shape=shape,
    oracle=oracle,
    tolerance=TOLERANCE,
    cost=cost,
)
