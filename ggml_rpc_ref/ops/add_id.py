"""ADD_ID: add to each row of a tensor the row of another tensor that an index picks.

    dst[i0, i, j, k] = src0[i0, i, j, k] + src1[i0, src2[i, j]]

All F32 but the indices. src0: ne = (n, m, t, r3), dense rows. src1: ne = (n, rows, ..), dense rows. src2: I32, ne = (m, t, ..),
any strides; each 0 <= index < rows. Of src1 and src2 the first matrix is read. dst: src0's ne, dense rows; may be src0's memory.
Empty: nothing is computed, and no index is checked.

Source: ggml_add_id in ggml.c, ggml_compute_forward_add_id_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse dimensions that do not fit together, gaps within rows."""
    src0, src1, src2, dst = node.source(0), node.source(1), node.source(2), node.dst
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as src0", dst.ne)
    fits = src1.ne[0] == src0.ne[0] and min(src1.ne[2:]) >= 1
    node.require(fits, f"src1.ne ({src0.ne[0]}, rows, ..)", src1.ne, at=src1)
    fits = src2.ne[:2] == src0.ne[1:3] and min(src2.ne[2:]) >= 1
    node.require(fits, f"src2.ne ({src0.ne[1]}, {src0.ne[2]}, ..)", src2.ne, at=src2)
    require_dense_rows(node, src0, src1, dst)


def oracle(node: Node) -> None:
    """Pick the rows and add them, part by part."""
    src0, src1 = node.source(0), node.source(1)
    index = checked_indices(node, 2, src1.ne[1], matrices=1)[0, 0]
    x, rows = src0.values(), src1.values()[0, 0]
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(x[block] + rows[:, block[3]][index[block[1:3]]])


OP = Op(
    name="ADD_ID",
    sources=(
        Source("a", ("F32",), "ne = (n, m, t, r3)"),
        Source("b", ("F32",), "ne = (n, rows)"),
        Source("ids", ("I32",), "ne = (m, t, ..), each below rows"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
)
