"""MEAN: the mean of each row.

    dst[i3][i2][j][0] = (sum over i of src0[i3][i2][j][i]) / ne0

src0: F32, dense rows. dst: F32, ne = (1, ne1, ne2, ne3), rows anywhere. The sum is rounded to float32 before the division. NaN
gives NaN, +inf with -inf gives NaN. No elements in a row: NaN (0/0).

Source: ggml_compute_forward_mean_f32 in ggml-cpu/ops.cpp (sum in double).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.row_sums import require_one_per_row, row_sums
from ggml_rpc_ref.ops.tolerance import FLOAT32


def oracle(node: Node) -> None:
    """Divide the sums by the length."""
    with np.errstate(all="ignore"):
        node.dst.store(row_sums(node) / np.float32(node.source(0).ne[0]))


OP = Op(
    name="MEAN",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    shape=require_one_per_row,
    oracle=oracle,
    tolerance=FLOAT32,
)
