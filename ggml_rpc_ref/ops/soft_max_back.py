"""SOFT_MAX_BACK: the gradient of SOFT_MAX with respect to its input.

    dst[i] = scale * y[i] * (dy[i] - sum over the row of y * dy)

src0: dy, the gradient of the result; src1: y, the result of SOFT_MAX; both F32, contiguous, of the same ne. dst: F32,
contiguous, the same ne; may be src0's own memory. max_bias must be 0: upstream has no gradient for slopes. A row with NaN or an
infinity in dy becomes NaN. Empty: nothing is computed.

Source: ggml_compute_forward_soft_max_ext_back_f32 in ggml-cpu/ops.cpp, ggml_soft_max_ext_back in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous, require_even_rows, require_ne
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse other dimensions than src0's, gaps, an nb[1] that is not the length of a row even if ne[1] is 1, slopes."""
    dy, y = node.source(0), node.source(1)
    require_ne(node, dy.ne, y, node.dst)
    require_contiguous(node, dy, y, node.dst)
    require_even_rows(node, dy, y, node.dst)
    node.require(node.f32("max_bias") == 0.0, "max_bias 0", node.f32("max_bias"))


def oracle(node: Node) -> None:
    """Compute the formula; the sum in float64."""
    dy, y, result = node.source(0).array, node.source(1).array, node.dst.array
    scale = np.float32(node.f32("scale"))
    with np.errstate(all="ignore"):
        for block in row_blocks(node.dst.ne):
            total = np.sum(y[block] * dy[block], axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
            result[block] = (dy[block] - total) * y[block] * scale


OP = Op(
    name="SOFT_MAX_BACK",
    sources=(Source("dy", ("F32",), "gradient of the result"), Source("y", ("F32",), "the result, of dy's ne")),
    types=("F32",),
    params=(Param("scale", "f32", 0, "SOFT_MAX's factor on x"), Param("max_bias", "f32", 1, "0")),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0, 1),
    cost=by_row,
)
