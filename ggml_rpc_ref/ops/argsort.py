"""ARGSORT: the order of each row's elements.

    dst[j][0], dst[j][1], ... = the indices i of row j, by rising (order 0) or falling (order 1) src0[j][i]

src0: F32, dense, evenly spaced rows, at most 2^31 - 1 elements each. dst: I32, the same ne, likewise. Equal elements may come
in any order (ggml does not specify it). Here the lower index comes first, and so it does upstream in rows of up to 16 elements
(an insertion sort); in longer rows upstream's order is that of std::sort. -0 equals 0. NaN comes last; upstream's sort has no
defined result with NaN. Empty: nothing is computed.

Source: ggml_compute_forward_argsort_f32 in ggml-cpu/ops.cpp, ggml_argsort in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, by_row, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared.layout import require_dense_rows, require_even_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.shared.sorting import INT32_MAX, exchanged, ranked
from ggml_rpc_ref.ops.tolerance import EXACT

RISING, FALLING = 0, 1


def shape(node: Node) -> None:
    """Refuse other dimensions than the source's, rows unevenly spaced or too long, an unknown order."""
    src0 = node.source(0)
    node.require(node.dst.ne == src0.ne, f"ne {src0.ne} as the source", node.dst.ne)
    require_dense_rows(node, node.dst)
    require_even_rows(node, src0, node.dst)
    node.require(src0.ne[0] <= INT32_MAX, "rows that int32 can count", src0.ne[0], at=src0)
    node.require(node.i32("order") in (RISING, FALLING), "order 0 or 1", node.i32("order"))


def oracle(node: Node) -> None:
    """Sort each row; equal elements stay in order."""
    source, result, falling = node.source(0).array, node.dst.array, node.i32("order") == FALLING
    for block in row_blocks(node.dst.ne):
        result[block] = ranked(source[block], falling)


def oracle_by_exchange(node: Node) -> None:
    """Sort each row by exchanges, which move equal elements."""
    source, result, falling = node.source(0).array, node.dst.array, node.i32("order") == FALLING
    for at in np.ndindex(source.shape[:-1]):
        result[at] = exchanged(source[at], falling)


def cost_of_exchanges(node: Node) -> Cost:
    """Return the cost: each element of a row is compared with all behind it."""
    return Cost(32 * node.dst.ne[0], elements(node) + node.dst.nelements * (CALL * 4 + node.dst.ne[0]))


OP = Op(
    name="ARGSORT",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("I32",),
    params=(Param("order", "i32", 0, "ggml_sort_order: 0 rising, 1 falling"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=by_row,
    earlier=(before("ARGSORT.ties", oracle=oracle_by_exchange, cost=cost_of_exchanges),),
)
