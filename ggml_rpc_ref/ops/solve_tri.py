"""SOLVE_TRI: solve A X = B for a lower triangular A, by forward substitution.

    dst[i][j] = (src1[i][j] - sum over t < i of src0[i][t] * dst[t][j]) / src0[i][i]

src0: A, F32 ne = (n, n, b2, b3); what lies right of its diagonal is not read. src1: B, F32 ne = (k, n, b2, b3). dst: X, F32,
B's ne; may be src1's own memory. Matrices without gaps, anywhere. A zero on the diagonal gives infinities or NaN, as division
does; NaN and infinities spread to the rows below. Empty: nothing is computed. left, lower and not unit triangular is the only
variant that ggml has; it has no parameters.

Source: ggml_compute_forward_solve_tri_f32 in ggml-cpu/ops.cpp, ggml_solve_tri in ggml.c.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import Case, Node, Op, Operand, Source, Tolerance
from ggml_rpc_ref.tensor import Tensor


def shape(node: Node) -> None:
    """Refuse a matrix that is not square, sides that don't fit, matrices with gaps."""
    a, b = node.source(0), node.source(1)
    n = a.ne[0]
    node.require(a.ne[1] == n, "a square matrix", a.ne)
    node.require(b.ne[1:] == (n, *a.ne[2:]), f"src1.ne (k, {n}, {a.ne[2]}, {a.ne[3]})", b.ne)
    node.require(node.dst.ne == b.ne, f"ne {b.ne} as src1", node.dst.ne)
    for tensor in (a, b, node.dst):
        node.require(_has_dense_matrices(tensor), "matrices without gaps", tensor.nb)


def _has_dense_matrices(tensor: Tensor) -> bool:
    nb0, nb1, nb2, nb3 = tensor.nb
    return nb0 == 4 and nb1 == 4 * tensor.ne[0] and nb2 % 4 == 0 and nb3 % 4 == 0


def oracle(node: Node) -> None:
    """Substitute row by row, the rows found so far held in float32 as upstream holds them, their sums in float64."""
    a, b, x = node.source(0).array, node.source(1).array, node.dst.array
    with np.errstate(all="ignore"):
        for i in range(node.dst.ne[1]):
            known = a[:, :, i : i + 1, :i].astype(np.float64) @ x[:, :, :i].astype(np.float64)
            x[:, :, i] = (b[:, :, i] - known[:, :, 0].astype(np.float32)) / a[:, :, i, i, None]


def cases() -> Iterator[Case]:
    """Sizes around vector widths, batches, gaps between matrices, a zero on the diagonal, rubbish above it, nothing."""
    for n, k in ((1, 1), (2, 3), (7, 1), (11, 5), (16, 17), (31, 4)):
        yield system(f"n{n}-k{k}", Operand("F32", (n, n, 2, 3), fill=_matrix(n)), Operand("F32", (k, n, 2, 3)))
    a, b = Operand("F32", (5, 5, 2, 2), fill=_matrix(5)), Operand("F32", (3, 5, 2, 2))
    yield system("in-place", a, b, in_place=True)
    gaps = Operand("F32", (3, 5, 2, 2), nb=(4, 12, 64, 192))
    yield system("gaps", Operand("F32", (5, 5, 2, 2), nb=(4, 20, 112, 300), fill=_matrix(5)), gaps)
    yield system("zero", Operand("F32", (3, 3), fill="values:2,0,0,1,0,0,1,1,2"), Operand("F32", (2, 3)))
    above = "values:2,nan,inf,nan,1,4,-inf,nan,1,-1,0.5,nan,1,2,3,4"
    yield system("above", Operand("F32", (4, 4), fill=above), Operand("F32", (2, 4)))
    yield system("nan", Operand("F32", (3, 3), fill="values:2,0,0,nan,1,0,1,0,2"), Operand("F32", (2, 3)))
    yield system("empty", Operand("F32", (3, 3)), Operand("F32", (0, 3)))


def _matrix(n: int) -> str:
    """Return a fill of period n + 1, so that the diagonal is one number, larger than the rest: solutions don't explode."""
    return "values:" + ",".join(["2.5", *(str((7 * i % 11 - 5) / 8) for i in range(1, n + 1))])


def system(id: str, a: Operand, b: Operand, in_place: bool = False) -> Case:
    """Return a case whose destination follows from b."""
    return Case(id, Operand("F32", b.ne, alias="src1" if in_place else ""), (a, b))


OP = Op(
    name="SOLVE_TRI",
    sources=(Source("A", ("F32",), "ne = (n, n, b2, b3), lower triangular"), Source("B", ("F32",), "ne = (k, n, b2, b3)")),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=Tolerance(1e-4, 1e-5, 1e-9, "float32 sums in another order, whose differences grow from row to row"),
    in_place=True,
)
