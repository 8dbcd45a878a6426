"""Which kernels compute products of matrices."""

from __future__ import annotations

from typing import Final

from ggml_rpc_ref.backends.cuda.device import TensorMap
from ggml_rpc_ref.backends.cuda.plans import HOPPER, MOST_BLOCKS, TENSOR_CORES, WARP, Call, Limits, Plan, blocks, in_turn
from ggml_rpc_ref.ops.op import FLOATS, Node
from ggml_rpc_ref.tensor import Tensor

PACKED = frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"})
"""Types with a `take` in kernels/shared/packed.cuh."""
LEVELS = frozenset(
    {"MXFP4", "NVFP4", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M"}
)
"""Types with one in kernels/shared/packed_levels.cuh: for one or a few rows of src1; tiles take their weights one by one."""
ROUNDED = PACKED | LEVELS
FEW: Final = 8
"""Rows of src1 that `mul_mat_few` multiplies with the same weights."""
TILE: Final = 128
"""Rows of weights, and of src1, of a block of `mul_mat_tile`."""
TILE_THREADS: Final = 256
TILE_SHARED: Final = 48 * 1024
"""Bytes of its stages (`PRODUCT_STAGES` of kernels/shared/product_tile.cuh): what every GPU gives a block that asks for no more."""
BOX: Final = 64
"""Elements of a row in a box of a tensor map: the 128 bytes in which pieces change places."""
BOX_ROWS: Final = 128
"""Rows of src1 of a tile of `mul_mat_wgmma`."""
BOX_WEIGHTS: Final = (256, 128)
"""Rows of weights of such a tile, the better one first."""
RING: Final = 4
"""Stages of its shared memory (`PRODUCT_RING` of kernels/shared/product_wgmma.cuh)."""
WGMMA_THREADS: Final = 2 * 128 + 32
LONGEST: Final = 2**30
"""What indices of 32 bits count to at most, in kernels that use tensor cores."""


def mul_mat(node: Node, limits: Limits) -> Plan | None:
    """MUL_MAT: rounded rows for one or a few rows of src1 and weights in blocks, tensor cores for many, else a warp a result."""
    w, x = node.source(0), node.source(1)
    if not node.dst.nelements:
        return Plan(())
    short = max(*w.ne, x.ne[1]) <= LONGEST
    if x.dtype.name == "F32" and w.ne[0] > 0 and x.ne[2] * x.ne[3] < MOST_BLOCKS:
        if (w.dtype.name in ROUNDED or w.dtype.name in FLOATS) and x.ne[1] <= FEW and short:
            return _of_few(node, limits)
        if x.ne[1] > FEW and w.dtype.name != "F32" and limits.capability >= TENSOR_CORES and short:
            return _by_warpgroups(node, limits) if _has_boxes(w, limits) else _tiled(node)
    return Plan((Call("mul_mat_naive", blocks(node.dst.nelements * WARP)),))


def rounded_bytes(k: int, count: int) -> int:
    """Return the scratch memory for so many rounded rows (`rounded_size` of kernels/shared/rounded.cuh)."""
    return count * (-(-(k + k // 32 * 4 + k // 16 * 8) // 16) * 16)


def _round(kernel: str, x: Tensor) -> Call:
    """Return the call that rounds rows, a warp for each 32 elements."""
    return Call(kernel, blocks(x.nelements))


SHARING: Final = 4
"""Warps of a block of kernels that share rows of weights (`SHARING_WARPS` of kernels/shared/sharing.cuh)."""
TOGETHER: Final = 2
"""Rows of weights that warps multiply at a time."""
PIECE: Final = 2048
"""Elements of such a row that a warp has in shared memory at a time, and of the next ones (kernels/shared/rounded.cuh)."""
BUSY: Final = 16
"""Warps of a multiprocessor that keep enough on its way: each has the next piece, one or two kilobytes, of each of two rows."""


def _warps(k: int, rows: int, processors: int) -> int:
    """Return how many warps of a block share rows of weights.

    Args:
        k: elements of a row; each thread takes 32 at a time.
        rows: how many rows or pairs of them there are for warps.
        processors: multiprocessors, all of which should be busy.
    """
    return next((n for n in (1, 2) if rows * n >= processors * BUSY or k <= 32 * WARP * n), SHARING)


def _pieces(w: Tensor) -> int:
    """Return the bytes of shared memory through which a block brings weights."""
    return SHARING * 2 * TOGETHER * (PIECE // w.dtype.block * w.dtype.size)


def _of_few(node: Node, limits: Limits) -> Plan:
    """Return the plan for one row of src1 or a few: weights in blocks meet rows that are rounded before."""
    w, x = node.source(0), node.source(1)
    name, columns = ("vec", 1) if x.ne[1] == 1 else ("few", FEW)
    groups, matrices = -(-w.ne[1] // TOGETHER), x.ne[2] * x.ne[3]
    warps = _warps(w.ne[0], groups * matrices, limits.processors)
    grid = (-(-groups * warps // SHARING), -(-x.ne[1] // columns), matrices)
    kernel = f"mul_mat_{name}_{w.dtype.name.lower()}"
    if w.dtype.name in FLOATS:
        return Plan((Call(kernel, grid, SHARING * WARP, 0, (warps,)),))
    multiply = Call(kernel, grid, SHARING * WARP, _pieces(w), (warps,))
    return Plan((_round("mul_mat_round", x), multiply), rounded_bytes(x.ne[0], x.nrows))


def _tiled(node: Node) -> Plan:
    """Return the plan that multiplies 16-bit numbers; weights that are none become BF16, which has their range."""
    w, x = node.source(0), node.source(1)
    grid = (-(-w.ne[1] // TILE), -(-x.ne[1] // TILE), x.ne[2] * x.ne[3])
    if max(grid[1:]) >= MOST_BLOCKS:
        return Plan((Call("mul_mat_naive", blocks(node.dst.nelements * WARP)),))
    kind = w.dtype.name.lower() if w.dtype.name in PACKED | {"F16", "BF16"} else "other"
    multiply = Call(f"mul_mat_tile_{kind}", grid, TILE_THREADS, TILE_SHARED)
    return Plan((_narrow(node), multiply), narrow_bytes(x.ne[0], x.nrows))


def _has_boxes(w: Tensor, limits: Limits) -> bool:
    """Whether products by warpgroups are to be had, and weights can be brought to them as they lie.

    Weights of other types are not unpacked for them: that would take two bytes of scratch memory for each weight, as long as a plan
    is kept. `mul_mat_tile` unpacks them on the way.
    """
    known = limits.wgmma and limits.capability == HOPPER and w.dtype.name in ("F16", "BF16")
    strides = [nb for nb, n in zip(w.nb[1:], w.ne[1:], strict=True) if n > 1]
    return known and w.offset % 16 == 0 and all(nb % 16 == 0 and nb < 2**40 for nb in strides)


def _by_warpgroups(node: Node, limits: Limits) -> Plan:
    """Return the plan that has boxes of both sides brought to shared memory; blocks compute tiles in turn."""
    w, x = node.source(0), node.source(1)
    down, matrices = -(-x.ne[1] // BOX_ROWS), x.ne[2] * x.ne[3]
    tiles = {n: -(-w.ne[1] // n) * down * matrices for n in BOX_WEIGHTS}
    n = next((n for n in BOX_WEIGHTS if tiles[n] >= limits.processors), BOX_WEIGHTS[-1])
    kind, length = w.dtype.name, -(-x.ne[0] // 32) * 32
    weights = TensorMap(kind, w.ne, _strides(w), (BOX, n, 1, 1))
    rows = TensorMap(
        kind, (length, x.ne[1], matrices, 1), (2 * length, 2 * length * x.ne[1], 2 * length * x.nrows), (BOX, BOX_ROWS, 1, 1)
    )
    # stages begin at a multiple of 1024 bytes; behind them there are two barriers for each
    shared = 1024 + RING * (2 * BOX * (BOX_ROWS + n) + 16)
    grid = (min(tiles[n], limits.processors), 1, 1)
    multiply = Call(f"mul_mat_wgmma_{kind.lower()}_{n}", grid, WGMMA_THREADS, shared, maps=((0, weights), (None, rows)))
    return Plan((_narrow(node), multiply), narrow_bytes(x.ne[0], x.nrows))


def _strides(w: Tensor) -> tuple[int, int, int]:
    """Return the strides of weights, whatever they are along dimensions of length 1 replaced by what a tensor map takes."""
    row = -(-w.ne[0] * w.dtype.size // 16) * 16
    first = w.nb[1] if w.ne[1] > 1 else row
    second = w.nb[2] if w.ne[2] > 1 else first
    return first, second, w.nb[3] if w.ne[3] > 1 else second


def _narrow(node: Node) -> Call:
    return Call("mul_mat_narrow", in_turn(node.source(1).nrows), more=(int(node.source(0).dtype.name == "F16"),))


def narrow_bytes(k: int, count: int) -> int:
    """Return the scratch memory for so many rows of 16-bit numbers (kernels/shared/narrow.cuh), and their exponents."""
    return count * (-(-k // 32) * 64 + 4)


def mul_mat_id(node: Node, limits: Limits) -> Plan | None:
    """MUL_MAT_ID: the indices are checked; then rounded rows for weights in blocks, else a warp for each result."""
    w, x, dst = node.source(0), node.source(1), node.dst
    check = Call("mul_mat_id_check", blocks(node.source(2).nelements))
    if not node.source(2).nelements:
        return Plan(())
    if not dst.nelements:
        return Plan((check,))
    fits = max(dst.ne[1:3]) < MOST_BLOCKS and x.dtype.name == "F32" and w.ne[0] > 0 and max(w.ne[:2]) <= LONGEST
    if w.dtype.name not in ROUNDED or not fits:
        return Plan((check, Call("mul_mat_id_naive", blocks(dst.nelements * WARP))))
    groups = -(-w.ne[1] // TOGETHER)
    warps = _warps(w.ne[0], groups * dst.ne[1] * dst.ne[2], limits.processors)
    grid = (-(-groups * warps // SHARING), dst.ne[1], dst.ne[2])
    multiply = Call(f"mul_mat_id_{w.dtype.name.lower()}", grid, SHARING * WARP, _pieces(w), (warps,))
    return Plan((check, _round("mul_mat_id_round", x), multiply), rounded_bytes(x.ne[0], x.nrows))
