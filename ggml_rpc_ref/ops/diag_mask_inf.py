"""DIAG_MASK_INF: replace the elements right of a diagonal by -infinity.

    dst[i3][i2][j][i] = -inf for i > n_past + j, else src0[i3][i2][j][i]

src0: F32, elements of a row neighbours. dst: F32, the same ne; may be src0's own memory. n_past must not be negative.
What is kept is kept bit by bit; what is replaced may have been NaN. Empty: nothing is computed. A view with gaps is taken only
in place, and only with its matrices evenly spaced, as upstream steps from one to the next by nb[2].

Source: ggml_compute_forward_diag_mask_f32 in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared import diag_mask
from ggml_rpc_ref.ops.tolerance import EXACT


def oracle(node: Node) -> None:
    """Replace the triangle."""
    diag_mask.replace_above(node, float("-inf"))


OP = Op(
    name="DIAG_MASK_INF",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    params=diag_mask.PARAMS,
    shape=diag_mask.shape,
    oracle=oracle,
    placement=diag_mask.placement,
    tolerance=EXACT,
    in_place=True,
)
