"""SOLVE_TRI: solve A X = B for a lower triangular A, by forward substitution.

    dst[i][j] = (src1[i][j] - sum over t < i of src0[i][t] * dst[t][j]) / src0[i][i]

src0: A, F32 ne = (n, n, b2, b3); elements right of its diagonal are not read. src1: B, F32 ne = (k, n, b2, b3). dst: X, F32,
B's ne; may be src1's own memory. Matrices without gaps, anywhere. A zero on the diagonal gives infinities or NaN, as division
does; NaN and infinities spread to the rows below. Empty: nothing is computed. left, lower and not unit triangular is the only
variant that ggml has; it has no parameters.

Source: ggml_compute_forward_solve_tri_f32 in ggml-cpu/ops.cpp, ggml_solve_tri in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Tensor


def shape(node: Node) -> None:
    """Refuse a matrix that is not square, sides that do not fit, matrices with gaps."""
    a, b = node.source(0), node.source(1)
    n = a.ne[0]
    node.require(a.ne[1] == n, "a square matrix", a.ne, at=a)
    node.require(b.ne[1:] == (n, *a.ne[2:]), f"src1.ne (k, {n}, {a.ne[2]}, {a.ne[3]}) by src0", b.ne, at=b)
    node.require(node.dst.ne == b.ne, f"ne {b.ne} as src1", node.dst.ne)
    for tensor in (a, b, node.dst):
        node.require(_has_dense_matrices(tensor), "matrices without gaps", tensor.nb, at=tensor)


def _has_dense_matrices(tensor: Tensor) -> bool:
    """Whether matrices have no gaps and begin on the grid of floats; the stride along a dimension of length 1 is not read."""
    (ne0, ne1, ne2, ne3), (nb0, nb1, nb2, nb3) = tensor.ne, tensor.nb
    dense = (ne0 == 1 or nb0 == 4) and (ne1 == 1 or nb1 == 4 * ne0)
    return dense and (ne2 == 1 or nb2 % 4 == 0) and (ne3 == 1 or nb3 % 4 == 0)


def oracle(node: Node) -> None:
    """Substitute row by row, the rows found so far held in float32 as upstream holds them, their sums in float64."""
    a, b, x = node.source(0).array, node.source(1).array, node.dst.array
    with np.errstate(all="ignore"):
        # not np.linalg.solve: it reads A's upper half, reorders rows, and raises for a zero on the diagonal
        for i in range(node.dst.ne[1]):
            known = a[:, :, i : i + 1, :i].astype(np.float64) @ x[:, :, :i].astype(np.float64)
            x[:, :, i] = (b[:, :, i] - known[:, :, 0].astype(np.float32)) / a[:, :, i, i, None]


def cost(node: Node) -> Cost:
    """Return the cost: the rows found so far as float64, again for each row."""
    n, own = node.dst.ne[1], 12 * node.dst.nelements + 12 * node.source(0).ne[0] * node.dst.ne[2] * node.dst.ne[3]
    return Cost(own, elements(node) + n * (node.dst.nelements + 2 * CALL))


OP = Op(
    name="SOLVE_TRI",
    sources=(Source("A", ("F32",), "ne = (n, n, b2, b3), lower triangular"), Source("B", ("F32",), "ne = (k, n, b2, b3)")),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-4, 1e-5, 1e-9, "float32 sums in another order, whose differences grow from row to row"),
    in_place=(1,),
    cost=cost,
)
