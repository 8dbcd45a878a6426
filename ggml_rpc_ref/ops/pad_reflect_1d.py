"""PAD_REFLECT_1D: pad each row on both sides with its mirror image; the outermost element is not repeated.

    dst[i, r] = src0[|i - p0|, r] up to the row's last element, from there on src0[2*(ne0 - 1) - (i - p0), r]

src0: F32, ne = (ne0, r1, r2, r3), dense rows. dst: F32, ne = (p0 + ne0 + p1, r1, r2, r3), likewise. p0 and p1 from 0 to ne0 -
1. NaN, infinities and -0 are moved as they are.

Source: ggml_pad_reflect_1d in ggml.c; ggml_compute_forward_pad_reflect_1d in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse a border as long as the row, a result of other dimensions, rows with gaps."""
    src0, dst, p0, p1 = node.source(0), node.dst, node.i32("p0"), node.i32("p1")
    node.require(0 <= p0 < src0.ne[0] and 0 <= p1 < src0.ne[0], f"p0 and p1 from 0 to {src0.ne[0] - 1}", (p0, p1))
    ne = (p0 + src0.ne[0] + p1, *src0.ne[1:])
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    require_contiguous_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Gather each row by mirrored indices."""
    last, index = node.source(0).ne[0] - 1, np.abs(np.arange(node.dst.ne[0]) - node.i32("p0"))
    node.dst.array[...] = node.source(0).array[..., np.where(index <= last, index, 2 * last - index)]


def cost(node: Node) -> Cost:
    """Return the cost: the indices of a row, several times over while they are made, and what they gather."""
    return Cost(32 * node.dst.ne[0] + 4 * node.dst.nelements, elements(node))


OP = Op(
    name="PAD_REFLECT_1D",
    sources=(Source("x", ("F32",), "ne = (ne0, r1, r2, r3)"),),
    types=("F32",),
    params=(
        Param("p0", "i32", 0, "elements before, below ne0"),
        Param("p1", "i32", 1, "elements after, below ne0"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
)
