"""OPT_STEP_SGD: one step of stochastic gradient descent: update a weight.

    w = w * (1 - alpha * wd) - alpha * g

src0: w, src1: g (the gradient): F32, of the same ne and strides, dense rows. src2: two F32 settings in a row: alpha, wd (weight
decay). dst: a view of src0, of its ne and nb. src0 is written. NaN and infinities stay within their element.

Source: ggml_compute_forward_opt_step_sgd_f32 in ggml-cpu/ops.cpp, ggml_opt_step_sgd in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.optimiser import (
    require_like_weight,
    require_result_is_weight,
    require_result_like_weight,
    require_settings,
)
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import FLOAT32


def shape(node: Node) -> None:
    """Refuse a gradient of another layout than the weight's, other than two settings, a result unlike the weight."""
    require_like_weight(node, node.source(1))
    require_settings(node, node.source(2), 2)
    require_result_like_weight(node)


def oracle(node: Node) -> None:
    """Update in float32."""
    weight, gradient = node.source(0).array, node.source(1).array
    alpha, decay = node.source(2).array.ravel()
    with np.errstate(all="ignore"):
        for block in element_blocks(node.dst.ne):
            weight[block] = weight[block] * (1 - alpha * decay) - alpha * gradient[block]


OP = Op(
    name="OPT_STEP_SGD",
    sources=(
        Source("w", ("F32",), "the weight, written"),
        Source("g", ("F32",), "its gradient"),
        Source("settings", ("F32",), "alpha, wd"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    placement=require_result_is_weight,
    tolerance=FLOAT32,
    in_place=(0, 1),
)
