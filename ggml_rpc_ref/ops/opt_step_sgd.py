"""OPT_STEP_SGD: one step of stochastic gradient descent: update a weight.

    w = w * (1 - alpha * wd) - alpha * g

src0: w, src1: g (the gradient): F32, of one ne and the same strides, elements of a row neighbours. src2: two F32 settings in
a row: alpha, wd (weight decay). dst: a view of src0, of its ne and nb. src0 is written. NaN and infinities stay within their
element.

Source: ggml_compute_forward_opt_step_sgd_f32 in ggml-cpu/ops.cpp, ggml_opt_step_sgd in ggml.c.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.optimiser import require_like_weight, require_same_place, require_settings
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse a gradient that doesn't lie as the weight does, other than two settings, another result than the weight."""
    require_like_weight(node, node.source(1))
    require_settings(node, node.source(2), 2)
    require_same_place(node)


def oracle(node: Node) -> None:
    """Update in float32."""
    weight, gradient = node.source(0).array, node.source(1).array
    alpha, decay = node.source(2).array.ravel()
    with np.errstate(all="ignore"):
        for block in row_blocks(node.dst.ne):
            weight[block] = weight[block] * (1 - alpha * decay) - alpha * gradient[block]


def cases() -> Iterator[Case]:
    """Sizes around vector widths, settings, gaps, special values."""
    for n in (1, 7, 16, 33):
        yield step(f"n{n}", Operand("F32", (n, 3, 2, 2)))
    yield step("no-decay", Operand("F32", (33, 3)), "values:0.5,0")
    yield step("decay", Operand("F32", (33, 3)), "values:0.5,1.5")
    yield step("gaps", Operand("F32", (5, 3, 2), nb=(4, 32, 128, 256)))
    yield step("special", Operand("F32", (16, 4), fill="special"))


def step(id: str, w: Operand, settings: str = "values:0.001,0.01") -> Case:
    """Return a case."""
    dst = Operand("F32", w.ne, nb=w.nb, alias="src0")
    return Case(id, dst, (w, Operand("F32", w.ne, nb=w.nb), Operand("F32", (2,), fill=settings)))


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
    cases=cases,
    tolerance=FLOAT32,
    in_place=True,
)
