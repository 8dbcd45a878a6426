"""What MUL_MAT, MUL_MAT_ID, OUT_PROD and the attention ops share: types with a dot product, rows, matrices in groups."""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.ops.op import BLOCKS, INTERMEDIATE, Node
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.tensor import Array, Tensor

_WITH_Q8_1 = ("Q4_1", "Q5_1")
_WITH_Q8_0 = ("Q1_0", "Q2_0", "Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4")

VEC_DOT_TYPE: dict[str, str] = (
    {"F32": "F32", "F16": "F16", "BF16": "BF16"}
    | {name: "Q8_K" for name in BLOCKS if name not in INTERMEDIATE}
    | dict.fromkeys(_WITH_Q8_0, "Q8_0")
    | dict.fromkeys(_WITH_Q8_1, "Q8_1")
)
"""Type of src0 to its partner, the type that upstream rounds src1 to (vec_dot_type); src1 may also come in it. Q8_1 and Q8_K are
missing: they are made from activations only, never multiplied as src0."""

WEIGHTS = tuple(VEC_DOT_TYPE)
"""Types that src0 may have."""

ACTIVATIONS = tuple(dict.fromkeys(("F32", *VEC_DOT_TYPE.values())))
"""Types that src1 may have: F32, or `VEC_DOT_TYPE` of src0's type."""


MOST_PRODUCTS = 2**34
"""Products of one call of the library that multiplies, which nothing can stop: about a second on one core."""


def require_whole_block_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse rows with gaps between their elements or blocks, and rows that are not a whole number of blocks."""
    require_dense_rows(node, *tensors)
    for tensor in tensors:
        node.require(
            tensor.ne[0] % tensor.dtype.block == 0,
            f"{node.operand(tensor)}.ne[0] a multiple of {tensor.dtype.block}",
            tensor.ne[0],
            at=tensor,
        )


def require_ascending_result(node: Node) -> None:
    """Refuse a destination that is transposed or permuted: its strides must not decrease (asserted by upstream's kernels)."""
    nb, empty = node.dst.nb, node.dst.nelements == 0
    node.require(empty or (nb[0] == 4 and 4 <= nb[1] <= nb[2] <= nb[3]), "nb[0] = 4 and strides that do not decrease", nb)


def require_paired_types(node: Node, weights: Tensor, activations: Tensor) -> None:
    """Refuse activations that are neither F32 nor of the partner type of the weights."""
    types = ("F32", VEC_DOT_TYPE[weights.dtype.name])
    node.require(activations.dtype.name in types, f"src1 of type {' or '.join(types)}", activations.dtype.name, at=activations)


def grouped(array: Array, n3: int, n2: int) -> Array:
    """Return a view (n3, r3, n2, r2, rows, columns) of an array (r3*n3, r2*n2, rows, columns), so that r matrices broadcast."""
    (all3, all2, rows, columns), (s3, s2, s1, s0) = array.shape, array.strides
    r3, r2 = all3 // n3, all2 // n2
    # not reshape: that copies what is not contiguous, and MUL_MAT writes its result through this view
    # matrix i uses partner i // r (ggml_compute_forward_mul_mat), so the group is the slower of the two axes
    strides = (s3 * r3, s3, s2 * r2, s2, s1, s0)
    return np.lib.stride_tricks.as_strided(array, (n3, r3, n2, r2, rows, columns), strides)
