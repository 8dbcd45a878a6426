"""Which kernels compute a node, and with how many threads: one function for each op, which answers None where it has no kernel.

A node's geometry decides, and whether its tensors begin at multiples of 16 bytes, so an answer serves every node of which these are
the same (`Kind` in backend.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ggml_rpc_ref.backends.cuda.attention import flash_attn_back, flash_attn_ext
from ggml_rpc_ref.backends.cuda.plans import (
    THREADS,
    WARP,
    Call,
    Limits,
    Plan,
    Planner,
    blocks,
    each,
    each_of,
    in_turn,
    is_long,
    rows,
)
from ggml_rpc_ref.backends.cuda.products import mul_mat, mul_mat_id
from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, Node
from ggml_rpc_ref.spec.opcodes import kinds
from ggml_rpc_ref.spec.versions import NEWEST
from ggml_rpc_ref.tensor import Tensor

WRITTEN = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
"""Types that `quantise_block` of kernels/shared/quantise.cuh writes and clients ask for."""


def is_aligned(tensor: Tensor) -> bool:
    """Whether every element lies where a GPU's loads want it: at a multiple of its size; a block of the power of two in its size.

    Blocks are loaded by up to 16 bytes. Tensors that clients make lie at multiples of 32; what does not is the oracle's.
    """
    size = tensor.dtype.size
    unit = min(16, size & -size)
    strides = (nb for nb, length in zip(tensor.nb, tensor.ne, strict=True) if length > 1)
    return tensor.offset % unit == 0 and all(nb % unit == 0 for nb in strides)


def _types(node: Node, *names: str) -> bool:
    """Whether all operands have one of these types."""
    return all(t is None or t.dtype.name in names for t in (node.dst, *node.src))


def elementwise(node: Node, _: Limits) -> Plan | None:
    """A thread for each element of the result; plain floats."""
    return each(node.op.name.lower(), node.dst.nelements) if _types(node, *FLOATS) else None


def one_of_the_kinds(node: Node, limits: Limits) -> Plan | None:
    """UNARY and GLU: the kinds of the newest version."""
    return elementwise(node, limits) if node.kind in kinds(node.op.name, NEWEST) else None


def by_rows(node: Node, _: Limits) -> Plan | None:
    """A block for each row; F32."""
    return rows(node.op.name.lower(), node) if node.dst.dtype.name == "F32" == node.source(0).dtype.name else None


def each_row_of_float(node: Node, _: Limits) -> Plan | None:
    """ROPE and ROPE_BACK: a block for each row, of F32 or F16."""
    return rows(node.op.name.lower(), node)


def adding(node: Node, limits: Limits) -> Plan | None:
    """ADD and ADD1: floats, and block types to the types of `WRITTEN` and I32."""
    if not node.source(0).dtype.is_quantised:
        return elementwise(node, limits)
    known = node.dst.dtype.name in (*WRITTEN, "I32")
    return each(f"{node.op.name.lower()}_blocks", node.dst.nelements // node.dst.dtype.block) if known else None


def copying(node: Node, _: Limits) -> Plan | None:
    """DUP, CPY and CONT: the same type, plain types, blocks to float32, and floats to the blocks of `WRITTEN`."""
    name, src, dst = node.op.name.lower(), node.source(0), node.dst
    if src.dtype == dst.dtype:
        return each(f"{name}_move", dst.nelements // dst.dtype.block)
    if dst.dtype.is_quantised:
        known = dst.dtype.name in WRITTEN
        return each(f"{name}_quantise", dst.nelements // dst.dtype.block) if known else None
    known = src.dtype.name in (*FLOATS, "I32") or (src.dtype.name in READABLE_BLOCKS and src.rows_are_contiguous)
    return each(f"{name}_convert", dst.nelements) if known else None


def get_rows(node: Node, _: Limits) -> Plan | None:
    """GET_ROWS: a thread for each element."""
    known = node.source(0).dtype.name in (*FLOATS, "I32", *READABLE_BLOCKS)
    return each("get_rows", node.dst.nelements) if known else None


def set_rows(node: Node, _: Limits) -> Plan | None:
    """SET_ROWS: a thread for each block of a row that is written."""
    known = node.dst.dtype.name in (*WRITTEN, "I32")
    return each("set_rows", node.source(0).nelements // node.dst.dtype.block) if known else None


def each_element(node: Node, _: Limits) -> Plan | None:
    """A thread for each element of the result, of every type that the op has."""
    return each_of(node, node.dst.nelements)


def each_block(node: Node, _: Limits) -> Plan | None:
    """A thread for each block of the result, or element of a plain type."""
    return each_of(node, node.dst.nelements // node.dst.dtype.block)


def each_row(node: Node, _: Limits) -> Plan | None:
    """A thread for each row of the result."""
    return each_of(node, node.dst.nrows if node.dst.nelements else 0)


def into_region(node: Node, _: Limits) -> Plan | None:
    """ACC and SET: a thread for each element of the result, where the region's dimensions lie one inside the other."""
    part, dst = node.source(1), node.dst
    # along a dimension of length 1 a stride may be anything
    nb = [stride if n > 1 else 0 for n, stride in zip(part.ne, (4, *(node.i32(f"nb{dim}") for dim in (1, 2, 3))), strict=True)]
    order = sorted(range(4), key=lambda dim: nb[dim])
    extent = 4
    for dim in order:
        if part.ne[dim] > 1:
            if nb[dim] < extent:
                return None
            extent += (part.ne[dim] - 1) * nb[dim]
    # src1 may be the result's own memory if the region is, element for element
    if nb != sorted(nb) and 1 not in part.ne and (part.ne, part.nb) == (dst.ne, dst.nb):
        return None
    return each(node.op.name.lower(), dst.nelements, tuple(reversed(order)))


MOST_PARTS: Final = 1024
"""Blocks that each leave a part of one number."""


def _parts(node: Node, count: int) -> Plan:
    name, most = node.op.name.lower(), min(count, MOST_PARTS)
    last = Call(name, (1, 1, 1), more=(most,))
    return Plan((*([Call(f"{name}_parts", (most, 1, 1))] if most else []), last), 8 * most)


def one_number(node: Node, _: Limits) -> Plan | None:
    """SUM and COUNT_EQUAL: a number from all elements."""
    return _parts(node, -(-node.source(0).nelements // THREADS))


def one_number_of_rows(node: Node, _: Limits) -> Plan | None:
    """CROSS_ENTROPY_LOSS: a number from all rows."""
    return _parts(node, node.source(0).nrows)


def each_window_then_element(node: Node, _: Limits) -> Plan | None:
    """POOL_2D_BACK: a thread for each window, unless it is a mean, then one for each element."""
    if not node.dst.nelements:
        return Plan(())
    windows = 0 if node.i32("op") else node.source(0).nelements
    if is_long(node, min(node.dst.nelements, windows or node.dst.nelements)):
        return None
    find = (Call("pool_2d_back_find", blocks(windows)),) if windows else ()
    return Plan((*find, Call("pool_2d_back", blocks(node.dst.nelements))), 8 * windows)


def each_column(node: Node, _: Limits) -> Plan | None:
    """SOLVE_TRI: a thread for each column of the result."""
    return each_of(node, node.dst.ne[0] * node.dst.ne[2] * node.dst.ne[3] if node.dst.nelements else 0)


def each_value(state: int) -> Planner:
    """Return the planner of an op with a state per head in that slot: a thread for each value of each head and sequence."""

    def planner(node: Node, _: Limits) -> Plan | None:
        size, heads = node.source(0).ne[:2]
        return each_of(node, size * heads * node.source(state).ne[1] if node.dst.nelements else 0)

    return planner


def gated_delta_net(node: Node, _: Limits) -> Plan | None:
    """GATED_DELTA_NET: a thread for each value of each head and sequence."""
    size, heads, _tokens, sequences = node.source(2).ne
    return each_of(node, size * heads * sequences if node.dst.nelements else 0)


def ssm_scan(node: Node, _: Limits) -> Plan | None:
    """SSM_SCAN: a thread for each channel of each head and sequence."""
    dim, heads, _tokens, sequences = node.source(1).ne
    return each_of(node, dim * heads * sequences if node.dst.nelements else 0)


def each_token(node: Node, _: Limits) -> Plan | None:
    """DSV4_HC_COMB: a thread for each token."""
    return each_of(node, node.dst.ne[2])


def argmax(node: Node, _: Limits) -> Plan | None:
    """ARGMAX: a block for each row of the source."""
    count = node.dst.nelements
    return Plan((Call("argmax", in_turn(count)),) if count else ())


RANKS: Final = 2**25
"""Bytes of ranks that the blocks of a launch have together, unless one row needs more."""


def ranking(node: Node, _: Limits) -> Plan | None:
    """ARGSORT and TOP_K: a block for each row, whose ranks are sorted in scratch memory; of some versions a thread for each row."""
    if not node.dst.nelements:
        return Plan(())
    if "ARGSORT.ties" in node.op.changes:
        return None if is_long(node, node.dst.nrows) else each("argsort_exchange", node.dst.nrows)
    size = 1 << (node.source(0).ne[0] - 1).bit_length()
    grid = in_turn(max(1, min(node.dst.nrows, RANKS // (8 * size))))
    call = Call(node.op.name.lower(), grid, max(WARP, min(THREADS, size)), more=(size,))
    return Plan((call,), 8 * size * grid[0])


def group_norm(node: Node, _: Limits) -> Plan | None:
    """GROUP_NORM: a block for each group of channels."""
    if not node.dst.nelements:
        return Plan(())
    channels = -(-node.dst.ne[2] // node.i32("n_groups"))
    groups = -(-node.dst.ne[2] // channels)
    return Plan((Call("group_norm", in_turn(groups * node.dst.ne[3]), more=(channels, groups)),))


def get_rows_back(node: Node, _: Limits) -> Plan | None:
    """GET_ROWS_BACK: zeros, then a thread for each column."""
    add = each_of(node, node.dst.ne[0] if node.dst.nelements else 0)
    if add is None or not add.calls:
        return add
    return Plan((Call("get_rows_back_clear", blocks(node.dst.nelements)), *add.calls))


def _for(planner: Planner, ops: str) -> dict[str, Planner]:
    return dict.fromkeys(ops.split(), planner)


PLANNERS: Mapping[str, Planner] = MappingProxyType(
    _for(adding, "ADD ADD1")
    | _for(elementwise, "SUB MUL DIV SQR SQRT LOG SIN COS SCALE CLAMP LEAKY_RELU SILU_BACK")
    | _for(one_of_the_kinds, "UNARY GLU")
    | _for(each_element, "ADD_ID REPEAT REPEAT_BACK PAD PAD_REFLECT_1D ROLL ARANGE FILL DIAG DIAG_MASK_INF DIAG_MASK_ZERO TRI")
    | _for(each_element, "OUT_PROD UPSCALE TIMESTEP_EMBEDDING OPT_STEP_ADAMW OPT_STEP_SGD")
    | _for(each_element, "IM2COL IM2COL_3D IM2COL_BACK COL2IM_1D CONV_2D CONV_3D CONV_2D_DW CONV_TRANSPOSE_1D CONV_TRANSPOSE_2D")
    | _for(each_element, "POOL_1D POOL_2D WIN_PART WIN_UNPART GET_REL_POS ADD_REL_POS SSM_CONV")
    | _for(each_element, "LIGHTNING_INDEXER DSV4_HC_PRE DSV4_HC_POST")
    | _for(each_row, "CUMSUM")
    | _for(each_block, "CONCAT")
    | _for(by_rows, "RMS_NORM SOFT_MAX NORM L2_NORM RMS_NORM_BACK SOFT_MAX_BACK SUM_ROWS MEAN CROSS_ENTROPY_LOSS_BACK")
    | _for(one_number, "SUM COUNT_EQUAL")
    | _for(one_number_of_rows, "CROSS_ENTROPY_LOSS")
    | _for(into_region, "ACC SET")
    | _for(ranking, "ARGSORT TOP_K")
    | _for(copying, "DUP CPY CONT")
    | _for(each_row_of_float, "ROPE ROPE_BACK")
    | {
        "ARGMAX": argmax,
        "DSV4_HC_COMB": each_token,
        "FLASH_ATTN_BACK": flash_attn_back,
        "FLASH_ATTN_EXT": flash_attn_ext,
        "GATED_DELTA_NET": gated_delta_net,
        "GATED_LINEAR_ATTN": each_value(4),
        "GET_ROWS": get_rows,
        "GET_ROWS_BACK": get_rows_back,
        "GROUP_NORM": group_norm,
        "MUL_MAT": mul_mat,
        "MUL_MAT_ID": mul_mat_id,
        "POOL_2D_BACK": each_window_then_element,
        "RWKV_WKV6": each_value(5),
        "RWKV_WKV7": each_value(6),
        "SET_ROWS": set_rows,
        "SOLVE_TRI": each_column,
        "SSM_SCAN": ssm_scan,
    }
)
"""Op to what chooses its kernels."""
