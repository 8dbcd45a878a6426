"""CROSS_ENTROPY_LOSS: the cross entropy of logits and a distribution, averaged over all rows.

    dst = -1 / rows * sum over rows and i of src1[i] * (src0[i] - max - ln(sum over the row of exp(src0 - max)))

src0: logits, src1: the target distribution, both F32 of the same ne, dense, evenly spaced rows. dst: F32, one element. max is
the row's largest logit. A logit of -inf gives NaN even where src1 is 0 (0 * -inf), and so does any NaN. No elements in a row:
-0. No rows: NaN (0/0).

Source: ggml_compute_forward_cross_entropy_loss_f32 in ggml-cpu/ops.cpp, which steps from row to row by nb[1] alone;
ggml_vec_log_soft_max_f32 in ggml-cpu/vec.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_dense_rows, require_even_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse two sources of different dimensions, rows that are not evenly spaced, a result that is not one number."""
    logits, wanted = node.source(0), node.source(1)
    node.require(wanted.ne == logits.ne, f"src1.ne {logits.ne}", wanted.ne, at=wanted)
    node.require(node.dst.ne == (1, 1, 1, 1), "one element", node.dst.ne)
    require_dense_rows(node, logits, wanted)
    require_even_rows(node, logits, wanted)


def oracle(node: Node) -> None:
    """Compute the formula: the exponentials in float32, the sums in float64."""
    logits, wanted = node.source(0), node.source(1).array
    total = np.float64(0)
    with np.errstate(all="ignore"):
        for block in row_blocks(logits.ne):
            x = logits.array[block]
            # initial is for rows without elements, which have no maximum
            x = x - np.max(x, axis=-1, keepdims=True, initial=-np.inf)
            x = x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)
            total += np.sum(x * wanted[block], dtype=np.float64)
        node.dst.array[...] = np.float32(total) * (np.float32(-1) / np.float32(logits.nrows))


OP = Op(
    name="CROSS_ENTROPY_LOSS",
    sources=(Source("logits", ("F32",), "any ne"), Source("labels", ("F32",), "the logits' ne, each row a distribution")),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    cost=by_row,
)
