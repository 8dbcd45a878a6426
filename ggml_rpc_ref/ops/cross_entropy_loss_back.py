"""CROSS_ENTROPY_LOSS_BACK: the gradient of CROSS_ENTROPY_LOSS with respect to its logits.

    dst[i] = (exp(src1[i] - max) / sum over the row of exp(src1 - max) - src2[i]) * src0 / rows

src0: the gradient of the loss, F32, one element. src1: logits, src2: the distribution, both F32, contiguous, of the same ne.
dst: F32, contiguous, of that ne; may be src1's own memory. A row with NaN or +inf among its logits becomes NaN. Empty: nothing
is computed.

Source: ggml_compute_forward_cross_entropy_loss_back_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous, require_even_rows, require_ne
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps, a gradient that is not one number, an nb[1] that is not the length of a row.

    The last also if ne[1] is 1, where no such stride is taken: upstream asserts ggml_is_contiguous_1's strides.
    """
    grad, logits, wanted = (node.source(i) for i in range(3))
    node.require(grad.ne == (1, 1, 1, 1), "src0 of one element", grad.ne, at=grad)
    require_ne(node, logits.ne, wanted, node.dst)
    require_contiguous(node, logits, wanted, node.dst)
    require_even_rows(node, logits, wanted, node.dst)


def oracle(node: Node) -> None:
    """Compute the formula: the exponentials in float32, their sum in float64."""
    grad, logits, wanted = node.source(0).array.item(), node.source(1).array, node.source(2).array
    result = node.dst.array
    with np.errstate(all="ignore"):
        share = np.float32(grad) / np.float32(node.source(1).nrows)
        for block in row_blocks(node.dst.ne):
            x = logits[block]
            # initial is for rows without elements, which have no maximum
            x = np.exp(x - np.max(x, axis=-1, keepdims=True, initial=-np.inf))
            x *= (1 / np.sum(x, axis=-1, keepdims=True, dtype=np.float64)).astype(np.float32)
            result[block] = (x - wanted[block]) * share


OP = Op(
    name="CROSS_ENTROPY_LOSS_BACK",
    sources=(
        Source("grad", ("F32",), "one element, the gradient of the loss"),
        Source("logits", ("F32",), "any ne"),
        Source("labels", ("F32",), "the logits' ne, each row a distribution"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(1, 2),
    cost=by_row,
)
