"""TOP_K: the indices of the k largest elements of each row.

    dst[j] = the indices i of the k largest src0[j][i]

src0: F32 ne = (n, r1, r2, r3), dense, evenly spaced rows. dst: I32, ne = (k, r1, r2, r3), likewise, k <= n. ggml specifies the
set, not the order. Here, as upstream, the order is falling with the first two exchanged (upstream exchanges them so that nobody
relies on it). Which of several equal elements are chosen, and in which order, is unspecified: here the lower index. NaN counts
as the smallest; upstream's result with NaN is undefined. k = 0 or no rows: nothing is computed.

Source: ggml_compute_forward_top_k_f32 in ggml-cpu/ops.cpp, ggml_top_k in ggml.c.
"""

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows, require_even_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.shared.sorting import INT32_MAX, ranked
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse more elements than a row has, other rows than the source's, rows unevenly spaced or too long."""
    src0 = node.source(0)
    node.require(node.dst.ne[1:] == src0.ne[1:], f"ne (k, {src0.ne[1]}, {src0.ne[2]}, {src0.ne[3]})", node.dst.ne)
    node.require(node.dst.ne[0] <= src0.ne[0] <= INT32_MAX, f"k at most {src0.ne[0]}", node.dst.ne[0])
    require_contiguous_rows(node, src0)
    require_dense_rows(node, node.dst)
    require_even_rows(node, src0, node.dst)


def oracle(node: Node) -> None:
    """Sort each row and take the first k."""
    source, result, k = node.source(0), node.dst.array, node.dst.ne[0]
    for block in row_blocks(source.ne):
        found = ranked(source.array[block], falling=True)[..., :k]
        # upstream swaps the first two on purpose, so that nobody relies on the order (ops.cpp)
        if k > 1:
            found[..., [0, 1]] = found[..., [1, 0]]
        result[block] = found


OP = Op(
    name="TOP_K",
    sources=(Source("x", ("F32",), "ne = (n, r1, r2, r3)"),),
    types=("I32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=by_row,
)
