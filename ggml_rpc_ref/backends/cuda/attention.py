"""Which kernels compute attention."""

from __future__ import annotations

from math import gcd
from typing import Final

from ggml_rpc_ref.backends.cuda.plans import MOST_BLOCKS, TENSOR_CORES, Call, Limits, Plan, each, in_turn
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
    q, k, v, dst = node.source(0), node.source(1), node.source(2), node.dst
    keys, batches = -(-k.ne[1] // KEYS_AT_ONCE), q.ne[3]
    # successive heads that meet the same keys and values
    together = gcd(q.ne[2] // k.ne[2], q.ne[2] // v.ne[2])
    rows, groups = together * q.ne[1], q.ne[2] // together * batches
    longest, even = max(k.ne[0], v.ne[0]), k.ne[0] % 8 == v.ne[0] % 8 == 0
    if not keys or groups >= MOST_BLOCKS or longest > LONGEST_HEAD or k.ne[1] > MOST_KEYS:
        return None
    tiled = rows > FEW_ROWS[-1] and limits.capability >= TENSOR_CORES and even and longest <= TILE_HEADS[-1]
    if tiled and k.dtype.name == v.dtype.name == "F16":
        name, size, fitting, own = f"tile_{next(n for n in TILE_HEADS if longest <= n)}", TILE_ROWS, 2, 0
    else:
        size = next((n for n in FEW_ROWS if rows <= n), FEW_ROWS[-1]) if {k.dtype.name, v.dtype.name} <= EIGHTS else 1
        name, fitting, own = f"few_{size}", FITTING[size], 4 * size * -(-k.ne[0] // 8) * 8
    # as many parts as blocks fit the GPU at one time
    batch = -(-rows // size)
    splits = max(1, min(MOST_SPLITS, keys, limits.processors * fitting // (batch * groups)))
    part = -(-keys // splits)
    splits = -(-keys // part)
    scratch = splits * dst.nrows * (16 + -(-v.ne[0] // 8) * 32)
    if batch * splits >= 2**31 or scratch > granted(node) // 2:
        return None
    more = (part * KEYS_AT_ONCE, together, splits)
    attend = Call(f"flash_attn_ext_{name}", (batch * splits, groups, 1), ROW_THREADS, own, more)
    return Plan((attend, Call("flash_attn_ext_combine", in_turn(dst.nrows), ROW_THREADS, shared, more)), scratch)
