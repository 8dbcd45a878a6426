"""DIAG: a square matrix with a row on its diagonal.

    dst[i3][i2][j][i] = src0[i3][i2][0][i] for i = j, else 0

src0: F32 ne = (n, 1, b2, b3), dense rows. dst: F32, ne = (n, n, b2, b3), dense rows. The diagonal is copied bit by bit.

Source: ggml_compute_forward_diag_f32 in ggml-cpu/ops.cpp, ggml_diag in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse anything but one row per matrix, a result that is not square, gaps within rows."""
    n, one, b2, b3 = node.source(0).ne
    node.require(one == 1, "one row per matrix", one, at=node.source(0))
    node.require(node.dst.ne == (n, n, b2, b3), f"ne {(n, n, b2, b3)}", node.dst.ne)
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Write zeros, then the diagonals."""
    row, result, at = node.source(0).array[:, :, 0].copy(), node.dst.array, np.arange(node.dst.ne[0])
    result[...] = 0
    result[:, :, at, at] = row


OP = Op(
    name="DIAG",
    sources=(Source("row", ("F32",), "ne = (n, 1, b2, b3)"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
