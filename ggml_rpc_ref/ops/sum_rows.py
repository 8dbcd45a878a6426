"""SUM_ROWS: add up each row.

    dst[i3][i2][j][0] = sum over i of src0[i3][i2][j][i]

src0: F32, elements of a row neighbours, rows anywhere. dst: F32, ne = (1, ne1, ne2, ne3), rows anywhere; may begin where src0
does. NaN gives NaN, +inf with -inf gives NaN. No elements in a row: 0.

Source: ggml_compute_forward_sum_rows_f32 in ggml-cpu/ops.cpp (sum in double).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import F32Array


def shape(node: Node) -> None:
    """Refuse a result that is not one element per row, gaps within rows."""
    src0 = node.source(0)
    node.require(node.dst.ne == (1, *src0.ne[1:]), f"ne {(1, *src0.ne[1:])}", node.dst.ne)
    require_dense_rows(node, src0, node.dst)


def row_sums(node: Node) -> F32Array:
    """Return the sum of each row of src0, shape (ne3, ne2, ne1, 1), added up in float64."""
    source, sums = node.source(0), np.zeros(node.dst.shape, np.float32)
    with np.errstate(all="ignore"):
        for block in row_blocks(source.ne):
            sums[block] = np.sum(source.array[block], axis=-1, keepdims=True, dtype=np.float64)
    return sums


def oracle(node: Node) -> None:
    """Add up."""
    node.dst.store(row_sums(node))


OP = Op(
    name="SUM_ROWS",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
)
