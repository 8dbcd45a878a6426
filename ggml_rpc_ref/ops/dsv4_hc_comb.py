"""DSV4_HC_COMB: matrices by which DeepSeek V4's hyper-connections mix four streams, made nearly doubly stochastic.

For each token t, with a the entry from stream src to stream dst, logits first:

    a[dst, src] = src0[8 + dst + 4*src, t] * src1[2] + src2[8 + dst + 4*src]
    a = softmax of a over dst, plus eps
    a = a / (eps + sum of a over src)                                      once
    a = a / (eps + sum of a over dst); a = a / (eps + sum of a over src)   n_iter - 1 times

src0 (mixes): F32, ne = (24, T). src1 (scale): F32, ne = (n), n >= 3. src2 (base): F32, ne = (24). dst: F32, ne = (4, 4, T), dst
innermost. Any strides. Only four streams are defined (24 = (2 + 4) * 4). n_iter >= 1. A NaN or +infinity among a token's logits
makes all of its results NaN.

Source: ggml_dsv4_hc_comb in ggml.c; ggml_compute_forward_dsv4_hc_comb_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.slabs import rows_per_slab, spans
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.stopping import checkpoint

STREAMS = 4
MIX = (2 + STREAMS) * STREAMS
FIRST = 2 * STREAMS
"""Where the entries of the matrix begin among a token's mixes; the others are for DSV4_HC_PRE and _POST."""

DST, SRC = -1, -2
"""The axes of a matrix."""

TOKENS = rows_per_slab(8 * 8 * STREAMS * STREAMS)
"""Tokens that are computed at a time."""


def shape(node: Node) -> None:
    """Refuse other dimensions, and no iteration."""
    mixes, scale, base, tokens = node.source(0), node.source(1), node.source(2), node.source(0).ne[1]
    node.require(mixes.ne == (MIX, tokens, 1, 1), f"mixes.ne ({MIX}, T)", mixes.ne, at=mixes)
    node.require(scale.ne[0] >= 3 and scale.ne[1:] == (1, 1, 1), "a scale of three or more", scale.ne, at=scale)
    node.require(base.ne == (MIX, 1, 1, 1), f"base.ne ({MIX})", base.ne, at=base)
    node.require(node.dst.ne == (STREAMS, STREAMS, tokens, 1), f"ne ({STREAMS}, {STREAMS}, {tokens})", node.dst.ne)
    node.require(node.i32("n_iter") >= 1, "n_iter >= 1", node.i32("n_iter"))


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute the formula for some tokens at a time, in float64."""
    mixes, scale, base = (node.source(slot).array[0, 0] for slot in range(3))
    eps, factor, shift = np.float64(node.f32("eps")), np.float64(scale[0, 2]), base[0, FIRST:].astype(np.float64)
    for tokens in spans(len(mixes), TOKENS):
        # float32 first, as the sum is there: its rounding is what the exponential sees
        logits = (mixes[tokens, FIRST:] * factor + shift).astype(np.float32).astype(np.float64)
        a = logits.reshape(-1, STREAMS, STREAMS)
        a = np.exp(a - a.max(DST, keepdims=True))
        a = a / a.sum(DST, keepdims=True) + eps
        a = a / (eps + a.sum(SRC, keepdims=True))
        for _ in range(1, node.i32("n_iter")):
            checkpoint()
            a = a / (eps + a.sum(DST, keepdims=True))
            a = a / (eps + a.sum(SRC, keepdims=True))
        node.dst.array[0, tokens] = a


def cost(node: Node) -> Cost:
    """Return the cost of the iterations."""
    tokens, rounds = node.dst.ne[2], max(1, node.i32("n_iter"))
    return Cost(0, elements(node) + rounds * (4 * node.dst.nelements + -(-tokens // TOKENS) * CALL))


OP = Op(
    name="DSV4_HC_COMB",
    sources=(
        Source("mixes", ("F32",), "ne = (24, T), of which the last 16 are read"),
        Source("scale", ("F32",), "at least three numbers, of which the third is read"),
        Source("base", ("F32",), "ne = (24), of which the last 16 are read"),
    ),
    types=("F32",),
    params=(
        Param("eps", "f32", 0, "added to every entry after the softmax, and to every sum"),
        Param("n_iter", "i32", 1, "how many times the sums over src are divided by, at least 1"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-6, 1e-10, "float32 arithmetic in another order, another library's exp"),
    cost=cost,
)
