"""SSM_SCAN: the recurrence of Mamba: a state per channel that decays and is updated by each token.

For sequence s, head h, its group g = h div (n_head / n_group), and tokens t in order:

    delta = softplus(dt[h, t, s])                                       softplus(x) = x above 20, else ln(1 + exp(x))
    state[j, i] = state[j, i] * exp(delta * A[j, h]) + B[j, g, t, s] * x[i, h, t, s] * delta          (A[0, h] where A has one row)
    y[i, h, t, s] = sum over j of state[j, i] * C[j, g, t, s]

The states begin as src0's at index ids[s]. dst: F32, all y in the order of x, then all final states [d_state, dim, n_head,
n_seqs].

Sources in slot order: s F32, contiguous, ne = (d_state, dim, n_head, slots). x F32, ne = (dim, n_head, n_t, n_seqs). dt F32,
contiguous, ne = (n_head, n_t, n_seqs). A F32, contiguous, ne = (1 or d_state, n_head). B and C F32, ne = (d_state, n_group,
n_t, n_seqs). ids I32, ne = (n_seqs), each from 0 to slots - 1 (checked when the node runs). x, B and C: the matrices of a token
without gaps, distances of tokens and sequences multiples of 4 bytes. At least one token. softplus is rounded to float32 inside,
by definition (1 + exp(x) is 1 below -17).

Source: ggml_ssm_scan in ggml.c; ggml_compute_forward_ssm_scan_f32 in ggml-cpu/ops.cpp; ggml_compute_softplus_f32 in
ggml-impl.h.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source, before, later
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.layout import require_dense_rows, require_ne
from ggml_rpc_ref.ops.shared.recurrence import SNAPSHOTS, keep, snapshots
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array, F32Array

STATE, X, DT, A, B, C, IDS = range(7)


def shape(node: Node) -> None:
    """Refuse dimensions that do not go together, gaps where the kernel knows none, no tokens."""
    state, x, dt, a, b, c, ids = (node.source(slot) for slot in range(7))
    (d_state, dim, heads, _), (_, _, tokens, sequences) = state.ne, x.ne
    node.require(x.ne[:2] == (dim, heads), f"x.ne[:2] == ({dim}, {heads})", x.ne, at=x)
    node.require(dt.ne == (heads, tokens, sequences, 1), f"dt.ne ({heads}, {tokens}, {sequences})", dt.ne, at=dt)
    node.require(a.ne in ((1, heads, 1, 1), (d_state, heads, 1, 1)), f"A.ne (1 or {d_state}, {heads})", a.ne, at=a)
    groups = b.ne[1]
    want = (d_state, groups, tokens, sequences)
    require_ne(node, want, b)
    node.require(c.ne == want, f"ne {want} in src5 as in src4", c.ne, at=c)
    node.require(groups >= 1 and heads % groups == 0, f"groups that divide {heads} heads", groups, at=b)
    node.require(ids.ne == (sequences, 1, 1, 1), f"ids.ne ({sequences})", ids.ne, at=ids)
    node.require(tokens >= 1, "at least one token", tokens, at=x)
    count = snapshots(node)
    node.require(count == 1 or a.ne[0] == 1, "A of one row with several snapshots", a.ne, at=a)
    size = x.nelements + count * d_state * dim * heads * sequences
    node.require(node.dst.nelements == size and node.dst.is_contiguous, f"{size} contiguous elements", (node.dst.ne, node.dst.nb))
    _check_strides(node)


def _check_strides(node: Node) -> None:
    tensors = [node.source(slot) for slot in range(7)]
    require_dense_rows(node, *tensors)
    for slot in (STATE, DT, A):
        node.require(tensors[slot].is_contiguous, f"src{slot} to be contiguous", tensors[slot].nb, at=tensors[slot])
    state = tensors[STATE]
    one = 4 * state.ne[0] * state.ne[1] * state.ne[2]  # the kernel steps through dst's states by it, even where s has one slot
    node.require(tensors[X].ne[3] <= 1 or state.nb[3] == one, f"s.nb[3] == {one}", state.nb[3], at=state)
    for slot in (X, B, C):
        ne, nb = tensors[slot].ne, tensors[slot].nb
        node.require(ne[1] <= 1 or nb[1] == 4 * ne[0], f"src{slot} with nb[1] == {4 * ne[0]}", nb, at=tensors[slot])
        whole = nb[2] % 4 == nb[3] % 4 == 0
        node.require(whole, f"src{slot} with distances of tokens and sequences multiples of 4 bytes", nb, at=tensors[slot])


def shape_in_turn(node: Node) -> None:
    """Refuse what `shape` does, and groups whose number is not a power of 2."""
    shape(node)
    groups = node.source(B).ne[1]
    node.require(groups & (groups - 1) == 0, "a power of 2 of groups", groups, at=node.source(B))


def oracle(node: Node) -> None:
    """Give each group as many heads in a row as there are heads for it."""
    heads, groups = node.source(X).ne[1], node.source(B).ne[1]
    _scan(node, np.arange(heads) // (heads // groups))


def oracle_in_turn(node: Node) -> None:
    """Give the groups the heads in turn."""
    _scan(node, np.arange(node.source(X).ne[1]) % node.source(B).ne[1])


@np.errstate(all="ignore")
def _scan(node: Node, group_of: Array) -> None:
    """Walk through the tokens, all sequences and heads at once, the state in float64.

    Args:
        group_of: the group of each head, shape (heads,).
    """
    state, x, dt, a, b, c, _ = (node.source(slot).array for slot in range(7))
    if node.dst.nelements == 0:
        return
    ids = checked_indices(node, IDS, len(state))[0, 0, 0]
    now = state[ids].astype(np.float64)
    y, flat, tokens = np.empty(x.shape, np.float32), node.dst.array.reshape(-1), x.shape[1]
    states = flat[y.size :].reshape(snapshots(node), -1)
    delta = softplus(dt[0]).astype(np.float64)  # (sequences, tokens, heads)
    for t in range(tokens):
        checkpoint()
        decay = np.exp(delta[:, t, :, None] * a[0, 0])[:, :, None]
        into, out = (groups[:, t].astype(np.float64)[:, group_of] for groups in (b, c))
        now = now * decay + (x[:, t] * delta[:, t, :, None])[..., None] * into[:, :, None]
        y[:, t] = np.einsum("shij,shj->shi", now, out)
        keep(states, now, tokens - 1 - t)
    flat[: y.size] = y.reshape(-1)


def softplus(x: F32Array) -> F32Array:
    """Return ln(1 + exp(x)), or x above 20, in float32."""
    # clamped: both branches of the np.where below are computed, and the one above 20 is not used
    exponential = np.exp(np.minimum(x, np.float32(20)), dtype=np.float64).astype(np.float32)
    return np.where(x > 20, x, np.log(np.float32(1) + exponential, dtype=np.float64).astype(np.float32))


def cost(node: Node) -> Cost:
    """Return the cost: the states as float64, several times over, and a loop over the tokens."""
    x, state = node.source(X), node.source(STATE)
    one = state.ne[0] * state.ne[1] * state.ne[2] * x.ne[3]
    own = 48 * one + 8 * node.dst.nelements + 16 * node.source(DT).nelements
    return Cost(own, elements(node) + x.ne[2] * (8 * one + 8 * CALL))


OP = Op(
    name="SSM_SCAN",
    sources=(
        Source("s", ("F32",), "ne = (d_state, dim, n_head, slots)"),
        Source("x", ("F32",), "ne = (dim, n_head, n_t, n_seqs)"),
        Source("dt", ("F32",), "ne = (n_head, n_t, n_seqs)"),
        Source("A", ("F32",), "ne = (1 or d_state, n_head)"),
        Source("B", ("F32",), "ne = (d_state, n_group, n_t, n_seqs)"),
        Source("C", ("F32",), "ne = (d_state, n_group, n_t, n_seqs)"),
        Source("ids", ("I32",), "ne = (n_seqs), from 0 to slots - 1"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-5, 1e-10, "a float32 state rounded at every token, another expf, sums in another order"),
    cost=cost,
    later=(later("SSM_SCAN.snapshots", reads=(SNAPSHOTS,)),),
    earlier=(before("SSM_SCAN.groups", shape=shape_in_turn, oracle=oracle_in_turn),),
)
