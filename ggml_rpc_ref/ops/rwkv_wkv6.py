"""RWKV_WKV6: the attention of RWKV 6: a state per head that decays by key and accumulates key times value.

For each token, i counting keys and j values:

    out[j] = sum over i of r[i] * (time_first[i] * k[i] * v[j] + state[i][j])
    state[i][j] = state[i][j] * decay[i] + k[i] * v[j]

Sources in slot order: k, v, r, time_first, decay, state. time_first: F32, contiguous, at least S*H elements, of which the
first S*H are read, the same for all tokens.
The others, the result and their dimensions: see recurrence.py.

Source: ggml_rwkv_wkv6 in ggml.c; ggml_compute_forward_rwkv_wkv6_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.recurrence import STATE_SOURCE, TOLERANCE, recurrence_cost, require_recurrence, run_tokens, stream
from ggml_rpc_ref.tensor import Array

STREAMS = (0, 1, 2, 4)

TIME_FIRST, STATE = 3, 5


def shape(node: Node) -> None:
    """Refuse streams, a state or a result of other dimensions, and a time_first of another size."""
    require_recurrence(node, STREAMS, STATE)
    size, heads, first = *node.source(0).ne[:2], node.source(TIME_FIRST)
    node.require(
        first.nelements >= size * heads and first.is_contiguous, f"a contiguous time_first of {size * heads}", first.ne, at=first
    )


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute the formula token by token."""
    size, heads = node.source(0).ne[:2]
    first = node.source(TIME_FIRST).array.reshape(-1)[: heads * size].reshape(heads, size).astype(np.float64)

    def step(state: Array, token: list[Array]) -> tuple[Array, Array]:
        k, v, r, decay = token
        taken = k[..., None] * v[..., None, :]
        out = np.einsum("nhi,nhij->nhj", r, first[..., None] * taken + state)
        return state * decay[..., None] + taken, out

    run_tokens(node, STREAMS, STATE, step)


def cost(node: Node) -> Cost:
    """Return the cost: the states as float64, several times over, and a loop over the tokens."""
    return recurrence_cost(node, node.source(STATE).nelements, node.source(2).ne[2])


OP = Op(
    name="RWKV_WKV6",
    sources=(
        stream("k"),
        stream("v"),
        stream("r"),
        Source("time_first", ("F32",), "S*H elements or more"),
        stream("decay"),
        STATE_SOURCE,
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=TOLERANCE,
    cost=cost,
)
