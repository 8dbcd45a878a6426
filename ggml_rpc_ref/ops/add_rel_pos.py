"""ADD_REL_POS: add a term per key row and a term per key column to attention scores over an image.

    dst[kh*n + kw, q, h, 0] = src0[kh*n + kw, q, h, 0] + src2[kh, q, h] + src1[kw, q, h]
    dst[.., n] = src0[.., n] for n > 0

src0 (scores): F32, contiguous, ne = (n*n, a*b, heads, ..). src1 (per column) and src2 (per row): F32, contiguous, ne = (n, a,
b, heads), their queries counted through a, then b. dst: F32, contiguous, ne as src0. In place (op_params): the scores are read
from dst, which a client makes src0's own memory. Float32; above the diagonal (kh <= kw) the row's term is added first, below it
the column's. Further matrices (src0.ne[3] > 1) are copied only, as upstream does.

Source: ggml_add_rel_pos_impl in ggml.c; ggml_compute_forward_add_rel_pos_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse terms that do not fit the scores, and gaps."""
    scores, columns, rows, dst = node.source(0), node.source(1), node.source(2), node.dst
    node.require(dst.ne == scores.ne, f"ne {scores.ne} as the scores", dst.ne)
    node.require(columns.ne == rows.ne, f"src1.ne {rows.ne} as src2", columns.ne, at=columns)
    n, a, b, heads = columns.ne
    node.require(scores.ne[:3] == (n * n, a * b, heads), f"src0.ne ({n * n}, {a * b}, {heads}, ..)", scores.ne, at=scores)
    for tensor in (scores, columns, rows, dst):
        node.require(tensor.is_contiguous, "contiguous tensors", tensor.nb, at=tensor)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add both terms in upstream's order."""
    scores, columns, rows = (node.source(slot).array for slot in range(3))
    if node.i32("inplace"):
        scores = node.dst.array
    if scores.size == 0:
        return
    heads, n = columns.shape[0], columns.shape[3]
    result = scores.copy()
    first = result[0].reshape(heads, -1, n, n)
    by_row, by_column = rows.reshape(heads, -1, n, 1), columns.reshape(heads, -1, 1, n)
    # upstream's one loop adds row i10's term along the row and column i10's down the column; which of the two an element meets
    # first depends on its side of the diagonal, and with it the rounding
    above = np.triu(np.ones((n, n), bool))
    result[0] = np.where(above, first + by_row + by_column, first + by_column + by_row).reshape(result[0].shape)
    node.dst.array[...] = result


def cost(node: Node) -> Cost:
    """Return the cost: the scores and both sums at once."""
    return Cost(20 * node.dst.nelements, elements(node))


OP = Op(
    name="ADD_REL_POS",
    sources=(
        Source("scores", ("F32",), "ne = (n*n, a*b, heads, ..)"),
        Source("columns", ("F32",), "ne = (n, a, b, heads)"),
        Source("rows", ("F32",), "ne = (n, a, b, heads)"),
    ),
    types=("F32",),
    params=(Param("inplace", "i32", 0, "0: scores are read from src0; else from dst"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
    cost=cost,
)
