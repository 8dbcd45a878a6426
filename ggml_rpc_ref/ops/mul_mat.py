"""MUL_MAT: multiply matrices, each row of src1 with each row of src0.

    dst[i3][i2][j][i] = sum over k of src0[i3 / r3][i2 / r2][i][k] * src1[i3][i2][j][k]

src0: ne = (k, m, b2, b3), any float or block type that has a dot product: the weights. src1: ne = (k, n, r2*b2, r3*b3), F32, or
the type that upstream pairs with src0's (`VEC_DOT_TYPE`). dst: F32, ne = (m, n, r2*b2, r3*b3). prec (ggml_prec: 0 default, 10
F32) is a hint for accelerators; the CPU backend does not read it. Both sources have dense rows, which may lie anywhere: src0
and src1 may be views permuted in dimensions 1 to 3. dst has dense rows and strides that do not decrease. k = 0 gives zeros; no
rows give nothing. NaN and infinities spread as in sums of products.

Upstream's CPU never multiplies src0's own values with F32 activations unless src0 is F32: it first rounds the rows of src1 to
the partner type (F16, BF16, Q8_0, Q8_1 or Q8_K). The oracle is the sum itself, with src1 as it is; the tolerance covers the
rounding. An activation beyond 65504 therefore is infinite upstream under F16 weights, and finite here.

Source: ggml_compute_forward_mul_mat and type_traits_cpu in ggml-cpu/ggml-cpu.c, llamafile/sgemm.cpp (F32, F16, BF16, Q8_0, Q4_0,
Q5_0, IQ4_NL with two or more rows of src1), ggml_mul_mat in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.matmul import (
    ACTIVATIONS,
    MOST_PRODUCTS,
    WEIGHTS,
    grouped,
    require_ascending_result,
    require_paired_types,
    require_whole_block_rows,
)
from ggml_rpc_ref.ops.shared.slabs import slabs, spans
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Tensor

HINT = Param("hint", "i32", 1, "1: src0 is known to be a Hadamard matrix, see MUL_MAT.hint; else 0")

HADAMARD = 1
"""GGML_HINT_SRC0_IS_HADAMARD."""


def require_multipliable(node: Node, a: Tensor, b: Tensor) -> None:
    """Refuse operands that cannot be multiplied: rows of different length, matrices that do not broadcast (ggml_can_mul_mat)."""
    node.require(a.ne[0] == b.ne[0], f"rows of the same length, {a.ne[0]}", b.ne[0], at=b)
    for dim in (2, 3):
        node.require(a.ne[dim] > 0 and b.ne[dim] % a.ne[dim] == 0, f"ne[{dim}] a multiple of src0's {a.ne[dim]}", b.ne[dim], at=b)


def shape(node: Node) -> None:
    """Refuse operands that cannot be multiplied, a result of other dimensions, rows with gaps, types that do not go together."""
    require_paired_types(node, node.source(0), node.source(1))
    _check(node)


def shape_with_f16_activations(node: Node) -> None:
    """Refuse what `shape` does; with F32 weights the activations may be F16 or BF16."""
    a, b = node.source(0), node.source(1)
    if a.dtype.name != "F32" or b.dtype.name not in FLOATS:
        require_paired_types(node, a, b)
    _check(node)


def _check(node: Node) -> None:
    a, b = node.source(0), node.source(1)
    require_multipliable(node, a, b)
    want = (a.ne[1], b.ne[1], b.ne[2], b.ne[3])
    node.require(node.dst.ne == want, f"ne {want}", node.dst.ne)
    require_whole_block_rows(node, a, b)
    require_ascending_result(node)
    if node.op.reads("hint") and node.i32("hint") == HADAMARD:
        n, types = a.ne[0], ("F32", "F16")
        node.require(n > 0 and n & (n - 1) == 0 and a.ne[1] == n, "a square matrix of a power of 2 rows by the hint", a.ne, at=a)
        # asserted by ggml_compute_forward_fwht
        node.require(b.dtype.name in types, f"{' or '.join(types)} by the hint", b.dtype.name, at=b)


def oracle(node: Node) -> None:
    """Multiply all matrices in float32, a slab of src0's rows at a time."""
    a, b = node.source(0), node.source(1)
    groups = a.ne[3], a.ne[2]
    result = grouped(node.dst.array, *groups)
    y = grouped(b.values(), *groups)
    with np.errstate(all="ignore"):
        for start, stop, x in slabs(a):
            for rows in spans(stop - start, max(1, MOST_PRODUCTS // max(1, a.ne[0] * b.nrows))):
                # src0's matrices broadcast within their group instead of being repeated
                part = x[:, None, :, None, rows].swapaxes(-1, -2)
                np.matmul(y, part, out=result[..., start + rows.start : start + rows.stop])


def cost(node: Node) -> Cost:
    """Return the cost of the products."""
    return Cost(0, elements(node) + node.dst.nelements * node.source(0).ne[0] // PRODUCTS)


OP = Op(
    name="MUL_MAT",
    sources=(
        Source("a", WEIGHTS, "ne = (k, m, b2, b3), the weights"),
        Source("b", ACTIVATIONS, "ne = (k, n, r2*b2, r3*b3), F32 or the partner type of a's"),
    ),
    types=("F32",),
    params=(Param("prec", "i32", 0, "ggml_prec, a hint for accelerators: 0 default, 10 F32; not read"),),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(
        1e-5,
        1e-6,
        5e-3,
        "src1 is rounded to src0's partner type first: `ROUNDED` has the bound by type for even activations; a real model's have "
        "outliers, which cost more (up to 1.4e-3 seen in Gemma 3 270M)",
    ),
    cost=cost,
    later=(
        later("MUL_MAT.hint", reads=(HINT,)),
        later("MUL_MAT.f16-activations", shape=shape_with_f16_activations),
    ),
)
