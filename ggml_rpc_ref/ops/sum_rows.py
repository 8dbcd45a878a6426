"""SUM_ROWS: add up each row.

    dst[i3][i2][j][0] = sum over i of src0[i3][i2][j][i]

src0: F32, dense rows. dst: F32, ne = (1, ne1, ne2, ne3), rows anywhere; may begin where src0 does. NaN gives NaN, +inf with
-inf gives NaN. No elements in a row: 0.

Source: ggml_compute_forward_sum_rows_f32 in ggml-cpu/ops.cpp (sum in double).
"""

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.row_sums import require_one_per_dense_row, row_sums
from ggml_rpc_ref.ops.tolerance import FLOAT32


def oracle(node: Node) -> None:
    """Add up."""
    node.dst.store(row_sums(node))


OP = Op(
    name="SUM_ROWS",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    shape=require_one_per_dense_row,
    oracle=oracle,
    tolerance=FLOAT32,
)
