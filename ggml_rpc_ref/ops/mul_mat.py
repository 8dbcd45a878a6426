"""MUL_MAT: multiply matrices, each row of src1 with each row of src0.

    dst[i3][i2][j][i] = sum over k of src0[i3 / r3][i2 / r2][i][k] * src1[i3][i2][j][k]

src0: ne = (k, m, b2, b3), any float or block type that has a dot product: the weights. src1: ne = (k, n, r2*b2, r3*b3), F32, or the
type that upstream pairs with src0's (`PARTNER`). dst: F32, ne = (m, n, r2*b2, r3*b3).
prec (ggml_prec: 0 default, 10 F32) is a wish for accelerators; the CPU doesn't read it.
Elements (or blocks) of a row are neighbours in both sources; rows and matrices may lie anywhere, so src0 and src1 may be views
permuted in dimensions 1 to 3. dst's elements are neighbours and its strides don't fall. k = 0 gives zeros; no rows give nothing.
NaN and infinities spread as in sums of products.

Upstream's CPU never multiplies src0's own values with F32 activations unless src0 is F32: it first rounds the rows of src1 to
the partner type (F16, BF16, Q8_0, Q8_1 or Q8_K). The oracle is the sum itself, with src1 as it is; the tolerance says how far
the rounding goes. An activation beyond 65504 therefore is infinite upstream under F16 weights, and finite here.

Source: ggml_compute_forward_mul_mat and type_traits_cpu in ggml-cpu/ggml-cpu.c, llamafile/sgemm.cpp (F32, F16, BF16, Q8_0, Q4_0,
Q5_0, IQ4_NL with two or more rows of src1), ggml_mul_mat in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.op import BLOCKS, Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import operand, require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import slabs
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Array, Tensor

_WITH_Q8_1 = ("Q4_1", "Q5_1")

_WITH_Q8_0 = ("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "MXFP4", "NVFP4")

_WITHOUT = ("Q8_1", "Q8_K", "Q1_0", "Q2_0")

PARTNER: dict[str, str] = (
    {"F32": "F32", "F16": "F16", "BF16": "BF16"}
    | {name: "Q8_K" for name in BLOCKS if name not in _WITHOUT}
    | dict.fromkeys(_WITH_Q8_0, "Q8_0")
    | dict.fromkeys(_WITH_Q8_1, "Q8_1")
)
"""Type of src0 to the type that upstream rounds src1 to (vec_dot_type); src1 may also come in it. Q8_1 and Q8_K are missing:
they are made from activations only and have no dot product as src0. Q1_0 and Q2_0 are younger than 3.6.1."""

WEIGHTS = tuple(PARTNER)
"""Types that src0 may have."""

ACTIVATIONS = ("F32", "F16", "BF16", "Q8_0", "Q8_1", "Q8_K")
"""Types that src1 may have: F32, or `PARTNER` of src0's type."""


def can_mul_mat(node: Node, a: Tensor, b: Tensor) -> None:
    """Refuse two operands that don't multiply: rows of different length, matrices that don't broadcast (ggml_can_mul_mat)."""
    node.require(a.ne[0] == b.ne[0], f"rows of the same length, {a.ne[0]}", b.ne[0])
    for dim in (2, 3):
        node.require(a.ne[dim] > 0 and b.ne[dim] % a.ne[dim] == 0, f"ne[{dim}] a multiple of {a.ne[dim]}", b.ne[dim])


def packed_rows(node: Node, *tensors: Tensor) -> None:
    """Refuse rows with gaps between their elements or blocks, and rows that are no whole number of blocks."""
    require_dense_rows(node, *tensors)
    for tensor in tensors:
        node.require(
            tensor.ne[0] % tensor.dtype.block == 0,
            f"{operand(node, tensor)}.ne[0] a multiple of {tensor.dtype.block}",
            tensor.ne[0],
        )


def plain_result(node: Node) -> None:
    """Refuse a destination that is transposed or permuted: its strides must not fall (asserted by upstream's kernels)."""
    nb, empty = node.dst.nb, node.dst.nelements == 0
    node.require(empty or (nb[0] == 4 and 4 <= nb[1] <= nb[2] <= nb[3]), "nb[0] = 4 and strides that don't fall", nb)


def paired(node: Node, weights: Tensor, activations: Tensor) -> None:
    """Refuse activations that are neither F32 nor of the type that goes with the weights'."""
    types = ("F32", PARTNER[weights.dtype.name])
    node.require(activations.dtype.name in types, f"src1 of type {' or '.join(types)}", activations.dtype.name)


def shape(node: Node) -> None:
    """Refuse operands that don't multiply, a result of other dimensions, rows with gaps, types that don't go together."""
    a, b = node.source(0), node.source(1)
    paired(node, a, b)
    can_mul_mat(node, a, b)
    want = (a.ne[1], b.ne[1], b.ne[2], b.ne[3])
    node.require(node.dst.ne == want, f"ne {want}", node.dst.ne)
    packed_rows(node, a, b)
    plain_result(node)


def oracle(node: Node) -> None:
    """Multiply all matrices in float32, a slab of src0's rows at a time."""
    a, b = node.source(0), node.source(1)
    groups = a.ne[3], a.ne[2]
    result = grouped(node.dst.array, *groups)
    y = grouped(b.values(), *groups)
    with np.errstate(all="ignore"):
        for start, stop, x in slabs(a):
            np.matmul(y, x[:, None, :, None].swapaxes(-1, -2), out=result[..., start:stop])


def grouped(array: Array, n3: int, n2: int) -> Array:
    """Return a view (n3, r3, n2, r2, rows, columns) of an array (r3*n3, r2*n2, rows, columns): r matrices share one partner."""
    (all3, all2, rows, columns), (s3, s2, s1, s0) = array.shape, array.strides
    r3, r2 = all3 // n3, all2 // n2
    strides = (s3 * r3, s3, s2 * r2, s2, s1, s0)
    return np.lib.stride_tricks.as_strided(array, (n3, r3, n2, r2, rows, columns), strides)


OP = Op(
    name="MUL_MAT",
    sources=(
        Source("a", WEIGHTS, "ne = (k, m, b2, b3), the weights"),
        Source("b", ACTIVATIONS, "ne = (k, n, r2*b2, r3*b3), F32 or the partner type of a's"),
    ),
    types=("F32",),
    params=(Param("prec", "i32", 0, "ggml_prec, a wish for accelerators: 0 default, 10 F32; not read"),),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(
        1e-5,
        1e-6,
        5e-3,
        "src1 is rounded to src0's partner type first: `ROUNDED` has the bound by type for even activations; a real model's have "
        "outliers, which cost more (up to 1.4e-3 seen in Gemma 3 270M)",
    ),
)
