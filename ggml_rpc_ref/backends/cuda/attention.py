"""Which kernels compute attention."""

from __future__ import annotations

from math import gcd
from typing import Final, NamedTuple

from ggml_rpc_ref.backends.cuda.plans import MOST_BLOCKS, TENSOR_CORES, WARP, Call, Limits, Plan, each, in_turn
from ggml_rpc_ref.ops.cost import granted
from ggml_rpc_ref.ops.op import FLOATS, Node


def flash_attn_back(node: Node, _: Limits) -> Plan | None:
    """FLASH_ATTN_BACK: a block for each query, then a thread for each element of the gradients."""
    count, keys = node.source(0).nrows if node.source(0).nelements else 0, node.source(1).ne[1]
    scores = (Call("flash_attn_back_scores", in_turn(count)),) if count else ()
    gradients = each("flash_attn_back", node.dst.nelements)
    return Plan((*scores, *gradients.calls), 8 * count * keys)


ROW_THREADS: Final = 128
"""Threads of a block of FLASH_ATTN_EXT."""
FEW_ROWS: Final = (1, 4, 8)
"""Rows that a block of `flash_attn_ext_few` has: heads that share keys, times queries."""
FITTING: Final = {1: 4, 4: 4, 8: 3}
"""How many of these blocks a multiprocessor has room for; two of `flash_attn_ext_tile`."""
EIGHTS: Final = frozenset({*FLOATS, "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL"})
"""Types with a function in kernels/shared/eights.cuh; blocks of one row take the others."""
TILE_ROWS: Final = 64
"""Rows that a block of `flash_attn_ext_tile` has."""
TILE_HEADS: Final = (64, 96, 128, 256)
"""Elements of a head, at most, for each of these."""
EXPONENT_THREADS: Final = 512
"""Threads of a block of `flash_attn_ext_exponents`."""
FEWEST_HALVED: Final = 33
"""Rows from which on K and V that are not F16 are made so: they are read twice and written for it, and then read once for each 64
rows rather than for each 8. This is counted in bytes, not measured."""
KEYS_AT_ONCE: Final = 64
"""What the keys of a part are a multiple of."""
MOST_SPLITS: Final = 512
"""Parts that `flash_attn_ext_combine` can add."""
MOST_KEYS: Final = 2**30
"""Kernels that take keys in parts count them in 32 bits."""
LONGEST_HEAD: Final = 1024
"""Elements of a head, at most, for `flash_attn_ext_few`, whose threads have eight each."""


def flash_attn_ext(node: Node, limits: Limits) -> Plan | None:
    """FLASH_ATTN_EXT: the keys in parts, for few rows or in tensor cores for many; else a block for each row."""
    dv, count = node.source(2).ne[0], node.dst.nrows if node.dst.nelements else 0
    # what a block needs that computes a row by itself
    shared = 4 * (dv + ROW_THREADS)
    if not count:
        return Plan(())
    if (plan := _in_parts(node, limits, shared)) is not None:
        return plan
    return Plan((Call("flash_attn_ext_naive", in_turn(count), ROW_THREADS, shared),)) if shared <= 48 * 1024 else None


def _in_parts(node: Node, limits: Limits, shared: int) -> Plan | None:
    q, k, v = node.source(0), node.source(1), node.source(2)
    # successive heads that meet the same keys and values
    together = gcd(q.ne[2] // k.ne[2], q.ne[2] // v.ne[2])
    rows, groups = together * q.ne[1], q.ne[2] // together * q.ne[3]
    longest, even = max(k.ne[0], v.ne[0]), k.ne[0] % 8 == v.ne[0] % 8 == 0
    if not k.ne[1] or groups >= MOST_BLOCKS or longest > LONGEST_HEAD or k.ne[1] > MOST_KEYS:
        return None
    kinds = {k.dtype.name, v.dtype.name}
    size = next((n for n in FEW_ROWS if rows <= n), FEW_ROWS[-1]) if kinds <= EIGHTS else 1
    few = _Way(f"few_{size}", size, FITTING[size], 4 * size * -(-k.ne[0] // 8) * 8)
    if even and longest <= TILE_HEADS[-1] and limits.capability >= TENSOR_CORES:
        tile = _Way(f"tile_{next(n for n in TILE_HEADS if longest <= n)}", TILE_ROWS, 2, 0)
        others = tuple(slot for slot in (1, 2) if node.source(slot).dtype.name != "F16")
        if rows >= (FEWEST_HALVED if others else FEW_ROWS[-1] + 1) and (plan := _plan(node, limits, shared, tile, others)):
            return plan
    return _plan(node, limits, shared, few)


class _Way(NamedTuple):
    """Blocks of so many rows, of which a multiprocessor has room for so many, and their bytes of dynamic shared memory."""

    name: str
    size: int
    fitting: int
    own: int


def _plan(node: Node, limits: Limits, shared: int, way: _Way, halved: tuple[int, ...] = ()) -> Plan | None:
    """Return the keys in parts; None where that needs too much scratch memory.

    Args:
        shared: bytes of shared memory of a block that computes a row by itself.
        halved: sources that are made F16 before.
    """
    q, k, v, dst = node.source(0), node.source(1), node.source(2), node.dst
    together = gcd(q.ne[2] // k.ne[2], q.ne[2] // v.ne[2])
    groups, keys = q.ne[2] // together * q.ne[3], -(-k.ne[1] // KEYS_AT_ONCE)
    # as many parts as blocks fit the GPU at one time
    batch = -(-together * q.ne[1] // way.size)
    splits = max(1, min(MOST_SPLITS, keys, limits.processors * way.fitting // (batch * groups)))
    part = -(-keys // splits)
    splits = -(-keys // part)
    partials = splits * dst.nrows * (16 + -(-v.ne[0] // 8) * 32)
    # an exponent for each matrix, up to a multiple of 16 bytes, then its elements
    scratch = partials + sum(-(-t.ne[2] * t.ne[3] // 4) * 16 + 2 * t.nelements for t in map(node.source, halved))
    if batch * splits >= 2**31 or scratch > granted(node) // 2:
        return None
    before = [
        call
        for slot in halved
        for t in (node.source(slot),)
        for call in (
            Call("flash_attn_ext_exponents", in_turn(t.ne[2] * t.ne[3]), EXPONENT_THREADS, more=(slot, 0, 0, partials)),
            Call("flash_attn_ext_halves", in_turn(-(-t.nrows * WARP // ROW_THREADS)), ROW_THREADS, more=(slot, 0, 0, partials)),
        )
    ]
    more = (part * KEYS_AT_ONCE, together, splits, *([partials] if halved else ()))
    attend = Call(f"flash_attn_ext_{way.name}", (batch * splits, groups, 1), ROW_THREADS, way.own, more)
    return Plan((*before, attend, Call("flash_attn_ext_combine", in_turn(dst.nrows), ROW_THREADS, shared, more)), scratch)
