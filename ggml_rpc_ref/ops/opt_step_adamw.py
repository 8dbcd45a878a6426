"""OPT_STEP_ADAMW: one step of the AdamW optimiser: update a weight and both of its momenta.

    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g² * (1 - beta2)
    w = w * (1 - alpha * wd) - alpha * (m * beta1h) / (sqrt(v * beta2h) + eps)

src0: w, src1: g (the gradient), src2: m, src3: v: F32, of one ne and the same strides, elements of a row neighbours.
src4: seven F32 settings in a row: alpha, beta1, beta2, eps, wd (weight decay), beta1h, beta2h (bias corrections).
dst: a view of src0, of its ne and nb. src0, src2 and src3 are written. NaN and infinities stay within their element.

Source: ggml_compute_forward_opt_step_adamw_f32 in ggml-cpu/ops.cpp, ggml_opt_step_adamw in ggml.c; arXiv 1711.05101.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.optimiser import require_like_weight, require_same_place, require_settings
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse a gradient or momenta that don't lie as the weight does, other than seven settings, another result than the weight."""
    require_like_weight(node, node.source(1), node.source(2), node.source(3))
    require_settings(node, node.source(4), 7)
    require_same_place(node)


def oracle(node: Node) -> None:
    """Update in float32, term by term."""
    weight, gradient, first, second = (node.source(i).array for i in range(4))
    alpha, beta1, beta2, eps, wd, beta1h, beta2h = node.source(4).array.ravel()
    with np.errstate(all="ignore"):
        for block in row_blocks(node.dst.ne):
            g = gradient[block]
            m = first[block] * beta1 + g * (1 - beta1)
            v = second[block] * beta2 + g * g * (1 - beta2)
            first[block], second[block] = m, v
            weight[block] = weight[block] * (1 - alpha * wd) - alpha * (m * beta1h) / (np.sqrt(v * beta2h) + eps)


SETTINGS = "values:0.001,0.9,0.999,1e-8,0.01,10,1000"
"""Those of a first step, with the bias corrections 1 / (1 - beta)."""


def cases() -> Iterator[Case]:
    """Sizes around vector widths, settings of a first and a late step, gaps, special values."""
    for n in (1, 7, 16, 33):
        yield step(f"n{n}", Operand("F32", (n, 3, 2, 2)))
    yield step("late", Operand("F32", (33, 3)), "values:0.1,0.9,0.95,1e-6,0,1.5,1.1")
    yield step("decay", Operand("F32", (33, 3)), "values:0.5,0.5,0.5,0.1,1.5,2,2")
    yield step("zero-eps", Operand("F32", (33, 3)), "values:0.5,0.5,0.5,0,0,2,2")
    yield step("gaps", Operand("F32", (5, 3, 2), nb=(4, 32, 128, 256)))
    yield step("special", Operand("F32", (16, 4), fill="special"))


def step(id: str, w: Operand, settings: str = SETTINGS) -> Case:
    """Return a case: v, a mean of squares, is not negative."""
    like = Operand("F32", w.ne, nb=w.nb)
    squares = Operand("F32", w.ne, nb=w.nb, fill="uniform:0:2")
    dst = Operand("F32", w.ne, nb=w.nb, alias="src0")
    return Case(id, dst, (w, like, like, squares, Operand("F32", (7,), fill=settings)))


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
    cases=cases,
    tolerance=FLOAT32,
    in_place=True,
    writes=(2, 3),
)
