"""Which kernels compute products of matrices."""

from __future__ import annotations

from typing import Final

from ggml_rpc_ref.backends.cuda.plans import MOST_BLOCKS, TENSOR_CORES, WARP, Call, Limits, Plan, blocks, in_turn
from ggml_rpc_ref.ops.op import Node

PACKED = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"})
"""Types with a `take` in kernels/shared/packed.cuh."""
FEW: Final = 8
"""Rows of src1 that `mul_mat_few` multiplies with the same weights."""
TILE: Final = 64
"""Rows of weights, and of src1, of a block that uses tensor cores."""


def mul_mat(node: Node, limits: Limits) -> Plan | None:
    """MUL_MAT: rounded rows for one or a few rows of src1 and weights in blocks, tensor cores for many, else a warp a result."""
    w, x = node.source(0), node.source(1)
    if not node.dst.nelements:
        return Plan(())
    if x.dtype.name == "F32" and w.ne[0] > 0 and x.ne[2] * x.ne[3] < MOST_BLOCKS:
        if w.dtype.name in PACKED and x.ne[1] <= FEW:
            return _rounded(node)
        if x.ne[1] > FEW and w.dtype.name != "F32" and limits.capability >= TENSOR_CORES:
            return _tiled(node)
    return Plan((Call("mul_mat_naive", blocks(node.dst.nelements * WARP)),))


def rounded_bytes(k: int, count: int) -> int:
    """Return the scratch memory for so many rounded rows (`rounded_size` of kernels/shared/rounded.cuh), and their words."""
    return count * (-(-(k + k // 32 * 4 + k // 16 * 4) // 16) * 16 + 4)


def _warps(k: int) -> int:
    """Return how many warps of four share a row of weights: each thread has half a dozen sixteens to do, as far as the row goes."""
    return 1 if k < 4096 else 2 if k < 8192 else 4


def _rounded(node: Node) -> Plan:
    w, x = node.source(0), node.source(1)
    name, columns = ("vec", 1) if x.ne[1] == 1 else ("few", FEW)
    grid = (-(-w.ne[1] * _warps(x.ne[0]) // 4), -(-x.ne[1] // columns), x.ne[2] * x.ne[3])
    multiply = Call(f"mul_mat_{name}_{w.dtype.name.lower()}", grid, 4 * WARP, 0, (_warps(x.ne[0]),))
    return Plan((Call("mul_mat_round", in_turn(x.nrows)), multiply), rounded_bytes(x.ne[0], x.nrows))


def _tiled(node: Node) -> Plan | None:
    w, x = node.source(0), node.source(1)
    half, count = w.dtype.name == "F16", x.nrows
    grid = (-(-w.ne[1] // TILE), -(-x.ne[1] // TILE), x.ne[2] * x.ne[3])
    if max(grid[1:]) >= MOST_BLOCKS:
        return Plan((Call("mul_mat_naive", blocks(node.dst.nelements * WARP)),))
    narrow = Call("mul_mat_narrow", in_turn(count), more=(int(half),))
    multiply = Call("mul_mat_f16" if half else "mul_mat_bf16", grid, 4 * WARP)
    return Plan((narrow, multiply), count * (-(-x.ne[0] // 32) * 64 + 4))


def mul_mat_id(node: Node, _: Limits) -> Plan | None:
    """MUL_MAT_ID: the indices are checked; then rounded rows for weights in blocks, else a warp for each result."""
    w, x, dst = node.source(0), node.source(1), node.dst
    check = Call("mul_mat_id_check", blocks(node.source(2).nelements))
    if not node.source(2).nelements:
        return Plan(())
    if not dst.nelements:
        return Plan((check,))
    fits = max(dst.ne[1:3]) < MOST_BLOCKS and x.dtype.name == "F32" and w.ne[0] > 0
    if w.dtype.name not in PACKED or not fits:
        return Plan((check, Call("mul_mat_id_naive", blocks(dst.nelements * WARP))))
    grid = (-(-w.ne[1] * _warps(x.ne[0]) // 4), dst.ne[1], dst.ne[2])
    multiply = Call(f"mul_mat_id_{w.dtype.name.lower()}", grid, 4 * WARP, 0, (_warps(x.ne[0]),))
    round_ = Call("mul_mat_id_round", in_turn(x.nrows))
    return Plan((check, round_, multiply), rounded_bytes(x.ne[0], x.nrows))
