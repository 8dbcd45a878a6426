"""RMS_NORM_BACK: the gradient of RMS_NORM.

    dst = (src0 - src1 · sum(src1 · src0) / (sum(src1²) + n eps)) / sqrt(mean(src1²) + eps)     over each row of n

The two sums are rounded to float32 before anything is done with them: the difference cancels, and that determines its last
digits.

src0: the gradient of RMS_NORM's result. src1: what RMS_NORM was given. dst: all three F32, the same ne, dense rows. NaN and
infinities by IEEE rules. eps is not checked: a negative one may give NaN. Empty: nothing is computed.

Source: ggml_compute_forward_rms_norm_back_f32 in ggml-cpu/ops.cpp (products in float, sums in double).
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows, require_ne
from ggml_rpc_ref.ops.shared.slabs import part, row_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions and gaps within rows."""
    src0, src1 = node.source(0), node.source(1)
    require_ne(node, src0.ne, src1, node.dst)
    require_dense_rows(node, src0, src1)
    require_contiguous_rows(node, node.dst)


def oracle(node: Node) -> None:
    """Compute the formula, part by part."""
    grad, x, eps = node.source(0).values(), node.source(1).values(), np.float32(node.f32("eps"))
    for block in row_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(gradient(grad[block], x[block], eps))


def gradient(grad: F32Array, x: F32Array, eps: np.float32) -> Array:
    """Return the formula of a few rows."""
    n = np.float32(x.shape[-1])
    squares = np.sum(x * x, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
    products = np.sum(x * grad, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
    return (grad - x * (products / (squares + eps * n))) * (np.float32(1) / np.sqrt(squares / n + eps))


OP = Op(
    name="RMS_NORM_BACK",
    sources=(Source("grad", ("F32",), "dense rows"), Source("x", ("F32",), "grad's ne, dense rows")),
    types=("F32",),
    params=(Param("eps", "f32", 0, "as it was given to RMS_NORM"),),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=(0, 1),
    cost=by_row,
)
