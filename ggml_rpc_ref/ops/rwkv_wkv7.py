"""RWKV_WKV7: the attention of RWKV 7: a state per head that decays by key, is corrected along b, and takes in key times value.

For each token, i counting values and j keys:

    sa[i] = sum over j of a[j] * state[i][j]
    state[i][j] = state[i][j] * w[j] + v[i] * k[j] + sa[i] * b[j]
    out[i] = sum over j of r[j] * state[i][j]

Sources in slot order: r, w, k, v, a, b, state. Their dimensions and the result: see recurrence.py. S may be any here;
upstream's kernels on x86 read and write beyond a row where S is no multiple of 32 (AVX2) or 64 (AVX-512), so that only such
sizes can be compared.

Source: ggml_rwkv_wkv7 in ggml.c; ggml_compute_forward_rwkv_wkv7_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op
from ggml_rpc_ref.ops.shared.recurrence import STATE_SOURCE, TOLERANCE, case, check, run, stream
from ggml_rpc_ref.tensor import Array

STREAMS = (0, 1, 2, 3, 4, 5)
STATE = 6


def shape(node: Node) -> None:
    """Refuse streams, a state or a result of other dimensions."""
    check(node, STREAMS, STATE)


def oracle(node: Node) -> None:
    """Compute the formula token by token."""

    def step(state: Array, token: list[Array]) -> tuple[Array, Array]:
        r, w, k, v, a, b = token
        correction = np.einsum("nhj,nhij->nhi", a, state)
        state = state * w[..., None, :] + v[..., None] * k[..., None, :] + correction[..., None] * b[..., None, :]
        return state, np.einsum("nhj,nhij->nhi", r, state)

    run(node, STREAMS, STATE, step)


def cases() -> Iterator[Case]:
    """Head sizes that upstream can compute, heads, tokens, sequences; a and b small, as l2 norms make them: states stay small."""
    fills = ("normal", "uniform:0:1", "normal", "normal", "normal:0.1", "normal:0.1")
    yield case("one-token", 64, 2, 1, 1, fills)
    yield case("head-size-128", 128, 1, 2, 1, fills)
    yield case("many-tokens", 64, 1, 33, 1, fills)
    yield case("sequences", 64, 2, 6, 2, fills)
    yield case("one-token-per-sequence", 64, 1, 3, 3, fills)


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
    cases=cases,
    tolerance=TOLERANCE,
)
