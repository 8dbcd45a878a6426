"""GATED_LINEAR_ATTN: linear attention with a gate per key: a state per head that fades and takes in key times value.

For each token, i counting keys and j values:

    state[i][j] = state[i][j] * g[i] + k[i] * v[j]
    out[j] = sum over i of q[i] * scale * state[i][j]

Sources in slot order: k, v, q, g, state. Their dimensions and the result: see recurrence.py.

Source: ggml_gated_linear_attn in ggml.c; ggml_compute_forward_gla_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Param
from ggml_rpc_ref.ops.shared.recurrence import STATE_SOURCE, TOLERANCE, case, check, run, stream
from ggml_rpc_ref.tensor import Array

STREAMS = (0, 1, 2, 3)
STATE = 4


def shape(node: Node) -> None:
    """Refuse streams, a state or a result of other dimensions."""
    check(node, STREAMS, STATE)


def oracle(node: Node) -> None:
    """Compute the formula token by token."""
    scale = np.float32(node.f32("scale"))

    def step(state: Array, token: list[Array]) -> tuple[Array, Array]:
        k, v, q, g = token
        state = state * g[..., None] + k[..., None] * v[..., None, :]
        scaled = q.astype(np.float32) * scale  # a float upstream: a huge scale overflows here
        return state, np.einsum("nhi,nhij->nhj", scaled.astype(np.float64), state)

    run(node, STREAMS, STATE, step)


def cases() -> Iterator[Case]:
    """Head sizes around vector widths, heads, tokens, sequences, scales."""
    fills = ("normal", "normal", "normal", "uniform:0:1")
    for size in (1, 7, 16, 33, 64):
        yield case(f"head-size-{size}", size, 3, 4, 1, fills, scale=size**-0.5)
    yield case("one-token", 32, 2, 1, 1, fills, scale=0.125)
    yield case("many-tokens", 16, 2, 67, 1, fills, scale=0.25)
    yield case("sequences", 16, 2, 12, 4, fills, scale=0.25)
    yield case("one-token-per-sequence", 16, 2, 3, 3, fills, scale=0.25)
    yield case("one-head", 16, 1, 5, 1, fills, scale=1.0)
    yield case("scale-negative", 16, 1, 3, 1, fills, scale=-2.0)
    yield case("scale-zero", 16, 1, 3, 1, fills, scale=0.0)


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
    cases=cases,
    tolerance=TOLERANCE,
)
