"""What DIAG_MASK_INF and DIAG_MASK_ZERO share: a triangle of every matrix is replaced by one value."""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse other dimensions than the source's, views not changed in place, matrices unevenly spaced, a negative n_past."""
    src0, dst = node.source(0), node.dst
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as the source", dst.ne)
    node.require(are_contiguous(node) or dst.nb == src0.nb, "contiguous tensors, or a view in place", dst.nb)
    require_dense_rows(node, src0, dst)
    # upstream steps through all matrices by nb[2] (ggml_compute_forward_diag_mask_f32)
    node.require(dst.ne[3] == 1 or dst.nb[3] == dst.ne[2] * dst.nb[2], "matrices that are nb[2] apart throughout", dst.nb)
    node.require(node.i32("n_past") >= 0, "n_past >= 0", node.i32("n_past"))


def placement(node: Node) -> None:
    """Refuse a view with gaps that is not changed in place: upstream's copy from src0 to dst asserts contiguous tensors."""
    src0, dst = node.source(0), node.dst
    in_place = dst.storage is src0.storage and dst.offset == src0.offset
    node.require(in_place or are_contiguous(node), "contiguous tensors, or a view in place", dst.nb)


def are_contiguous(node: Node) -> bool:
    """Whether source and destination are both contiguous."""
    return node.dst.is_contiguous and node.source(0).is_contiguous


def replace_above(node: Node, value: float) -> None:
    """Copy the source, with value in the columns beyond n_past + row."""
    source, result = node.source(0).array, node.dst.array
    row, column = np.arange(source.shape[2])[:, None], np.arange(source.shape[3])
    for block in element_blocks(node.dst.ne):
        above = column[block[3]] > row[block[2]] + node.i32("n_past")
        result[block] = np.where(above, np.float32(value), source[block])


def diag_mask_op(name: str, value: float) -> Op:
    """Return the row of an op that replaces the elements right of a diagonal by a value."""

    def oracle(node: Node) -> None:
        replace_above(node, value)

    n_past = Param("n_past", "i32", 0, "columns of the first row, beyond the first column, that are kept; at least 0")
    source = Source("x", ("F32",), "any ne")
    return Op(name, (source,), ("F32",), shape, oracle, EXACT, (n_past,), placement, in_place=(0,))
