"""What SUM_ROWS and MEAN share: the sum of each row."""

import numpy as np

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.tensor import F32Array


def require_one_per_row(node: Node) -> None:
    """Refuse a result that is not one element per row, gaps within rows."""
    src0 = node.source(0)
    node.require(node.dst.ne == (1, *src0.ne[1:]), f"ne {(1, *src0.ne[1:])}", node.dst.ne)
    require_contiguous_rows(node, src0, node.dst)


def require_one_per_dense_row(node: Node) -> None:
    """Refuse what `require_one_per_row` does, and an nb[0] that is not 4 even in rows of one element."""
    require_one_per_row(node)
    require_dense_rows(node, node.source(0), node.dst)


def row_sums(node: Node) -> F32Array:
    """Return the sum of each row of src0, shape (ne3, ne2, ne1, 1), added up in float64."""
    source, sums = node.source(0), np.zeros(node.dst.shape, np.float32)
    with np.errstate(all="ignore"):
        for block in row_blocks(source.ne):
            # upstream's ggml_float, in which it adds rows up, is a double
            sums[block] = np.sum(source.array[block], axis=-1, keepdims=True, dtype=np.float64)
    return sums
