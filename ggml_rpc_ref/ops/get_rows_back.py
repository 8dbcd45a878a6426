"""GET_ROWS_BACK: the gradient of GET_ROWS: rows added up where they came from.

    dst[i0, r] = sum over i with src1[i] = r of src0[i0, i]     added in the order of i, in float32

src0: F32 or F16, ne = (n, m), dense rows. src1: I32, ne = (k) with k <= m, without gaps between its elements; each 0 <= index <
rows. Rows of src0 from k on are not read. dst: F32, ne = (n, rows), contiguous; rows that no index names become 0. Empty: nothing
is computed, and no index is checked.

Source: ggml_get_rows_back in ggml.c, ggml_compute_forward_get_rows_back in ggml-cpu/ops.cpp (which checks no index).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse anything but matrices and a vector of at most as many indices as src0 has rows, gaps where upstream sees none."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    n, m = src0.ne[:2]
    node.require(src0.ne == (n, m, 1, 1), "a matrix", src0.ne, at=src0)
    # upstream walks through src0 by src1's elements (ggml_compute_forward_get_rows_back_f32), and through those as if contiguous
    node.require(src1.ne[1:] == (1, 1, 1) and src1.ne[0] <= m, f"a vector of at most {m} indices", src1.ne, at=src1)
    node.require(src1.ne[0] <= 1 or src1.nb[0] == 4, "indices without gaps", src1.nb, at=src1)
    node.require(dst.ne == (n, dst.ne[1], 1, 1), f"ne ({n}, rows)", dst.ne)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)
    require_dense_rows(node, src0)
    require_contiguous_rows(node, dst)


def oracle(node: Node) -> None:
    """Add row after row, as upstream does: the order determines the rounding."""
    index = checked_indices(node, 1, node.dst.ne[1])[0, 0, 0]
    rows, total = node.source(0).values()[0, 0, : len(index)], np.zeros((node.dst.ne[1], node.dst.ne[0]), np.float32)
    with np.errstate(all="ignore"):
        # not total[index] += rows: with an index that repeats it would add only one of the rows
        np.add.at(total, index, rows)
    node.dst.array[0, 0] = total


OP = Op(
    name="GET_ROWS_BACK",
    sources=(
        Source("grad", ("F32", "F16"), "ne = (n, m)"),
        Source("indices", ("I32",), "ne = (at most m), each below rows of dst"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
