"""OPT_STEP_ADAMW: one step of the AdamW optimiser: update a weight and both of its momenta.

    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g² * (1 - beta2)
    w = w * (1 - alpha * wd) - alpha * (m * beta1h) / (sqrt(v * beta2h) + eps)

src0: w, src1: g (the gradient), src2: m, src3: v: F32, of the same ne and strides, dense rows. src4: seven F32 settings in a
row: alpha, beta1, beta2, eps, wd (weight decay), beta1h, beta2h (bias corrections). dst: a view of src0, of its ne and nb.
src0, src2 and src3 are written. NaN and infinities stay within their element.

Source: ggml_compute_forward_opt_step_adamw_f32 in ggml-cpu/ops.cpp, ggml_opt_step_adamw in ggml.c; arXiv 1711.05101.
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
    """Refuse a gradient or momenta of another layout than the weight's, other than seven settings, a result unlike the weight."""
    require_like_weight(node, node.source(1), node.source(2), node.source(3))
    require_settings(node, node.source(4), 7)
    require_result_like_weight(node)


def oracle(node: Node) -> None:
    """Update in float32, term by term."""
    weight, gradient, first, second = (node.source(i).array for i in range(4))
    alpha, beta1, beta2, eps, wd, beta1h, beta2h = node.source(4).array.ravel()
    with np.errstate(all="ignore"):
        for block in element_blocks(node.dst.ne):
            g = gradient[block]
            m = first[block] * beta1 + g * (1 - beta1)
            v = second[block] * beta2 + g * g * (1 - beta2)
            # the momenta are sources that the op writes too, so that the next step begins from them
            first[block], second[block] = m, v
            weight[block] = weight[block] * (1 - alpha * wd) - alpha * (m * beta1h) / (np.sqrt(v * beta2h) + eps)


OP = Op(
    name="OPT_STEP_ADAMW",
    sources=(
        Source("w", ("F32",), "the weight, written"),
        Source("g", ("F32",), "its gradient"),
        Source("m", ("F32",), "its first momentum, written"),
        Source("v", ("F32",), "its second momentum, written"),
        Source("settings", ("F32",), "alpha, beta1, beta2, eps, wd, beta1h, beta2h"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    placement=require_result_is_weight,
    tolerance=FLOAT32,
    in_place=(0, 1, 2, 3),
    writes=(2, 3),
)
