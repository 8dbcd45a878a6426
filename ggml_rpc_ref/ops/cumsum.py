"""CUMSUM: running sums along each row.

    dst[i] = src0[0] + src0[1] + ... + src0[i], added in this order in float32

src0: F32, dense rows. dst: F32, the same ne, dense rows; may be src0's own memory. NaN spreads to the right; +inf and -inf in
one row give NaN. Empty: nothing is computed.

Source: ggml_vec_cumsum_f32 in ggml-cpu/vec.h, ggml_compute_forward_cumsum_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks, spans
from ggml_rpc_ref.ops.tolerance import EXACT

PART = 2**18
"""Sums computed by one call: numpy holds the GIL for all of an accumulate over long rows, and other clients wait for it
(2 s seen for a row of 2^26)."""


def shape(node: Node) -> None:
    """Refuse other dimensions than the source's, gaps within rows."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Add from left to right: numpy's accumulate rounds after every step, as upstream's loop does."""
    source, result = node.source(0).array, node.dst.array
    with np.errstate(all="ignore"):
        for block in row_blocks(node.dst.ne):
            x, sums = source[block], result[block]
            for part in spans(x.shape[-1], PART):
                # a part begins with the sum before it; that of the source's own memory is written already, the part is not
                before = sums[..., max(0, part.start - 1) : part.start]
                sums[..., part] = np.add.accumulate(np.concatenate((before, x[..., part]), -1), axis=-1)[..., before.shape[-1] :]


OP = Op(
    name="CUMSUM",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
    cost=by_row,
)
