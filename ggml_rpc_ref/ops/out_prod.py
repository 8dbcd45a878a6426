"""OUT_PROD: multiply matrices column by column, the gradient of MUL_MAT with respect to its weights.

    dst[i3][i2][j][i] = sum over k of src0[i3 / r3][i2 / r2][k][i] * src1[i3][i2][k][j]

src0: ne = (m, k, b2, b3), F32 or a block type; elements (or blocks) of a row neighbours. src1: F32 ne = (n, k, r2*b2, r3*b3),
any strides. dst: F32 contiguous, ne = (m, n, r2*b2, r3*b3). A block type does not broadcast: r2 = r3 = 1. k = 0 gives zeros.
NaN and infinities spread as in sums of products. F16 and BF16 are refused, as upstream aborts on them.

Source: ggml_compute_forward_out_prod_f32 and _q_f32 in ggml-cpu/ops.cpp, ggml_out_prod in ggml.c.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.mul_mat import WEIGHTS, grouped, packed_rows, weights
from ggml_rpc_ref.ops.op import FLOAT32, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.slabs import slabs

TYPES = tuple(name for name in WEIGHTS if name not in ("F16", "BF16"))


def shape(node: Node) -> None:
    """Refuse operands of different k, matrices that don't broadcast, a result of other dimensions or with gaps."""
    a, b = node.source(0), node.source(1)
    node.require(a.ne[1] == b.ne[1], f"{a.ne[1]} rows", b.ne[1])
    for dim in (2, 3):
        n, shared = b.ne[dim], a.ne[dim]
        node.require(shared > 0 and n % shared == 0, f"ne[{dim}] a multiple of {shared}", n)
        node.require(n == shared or not a.dtype.is_quantised, f"ne[{dim}] of {shared}, as a block type doesn't broadcast", n)
    want = (a.ne[0], b.ne[0], b.ne[2], b.ne[3])
    node.require(node.dst.ne == want and node.dst.is_contiguous, f"a contiguous result of ne {want}", node.dst.ne)
    packed_rows(node, a, node.dst)


def oracle(node: Node) -> None:
    """Add up the products of a slab of rows at a time."""
    a, b = node.source(0), node.source(1)
    total = np.zeros(node.dst.shape, np.float32)
    groups = a.ne[3], a.ne[2]
    with np.errstate(all="ignore"):
        for start, stop, x in slabs(a):
            y = np.ascontiguousarray(b.array[..., start:stop, :])
            product = grouped(y, *groups).swapaxes(-1, -2) @ x[:, None, :, None]
            total += product.reshape(total.shape)
    node.dst.store(total)


def cases() -> Iterator[Case]:
    """Every type; sizes around vector widths; broadcasting; views of both operands; empty dimensions."""
    for name in TYPES:
        yield outer(name.lower(), weights(name, (256, 5)), Operand("F32", (3, 5)))
    for m, n, k in ((1, 1, 1), (3, 5, 2), (16, 17, 33), (33, 7, 64), (130, 2, 3)):
        yield outer(f"m{m}-n{n}-k{k}", Operand("F32", (m, k)), Operand("F32", (n, k)))
    for r2, r3 in ((1, 1), (2, 1), (1, 3), (3, 2)):
        yield outer(f"broadcast-{r2}-{r3}", Operand("F32", (5, 4, 2, 2)), Operand("F32", (3, 4, 2 * r2, 2 * r3)))
    yield outer("q4_0-batches", Operand("Q4_0", (32, 4, 3, 2)), Operand("F32", (3, 4, 3, 2)))
    a, b = Operand("F32", (5, 4, 3)), Operand("F32", (7, 4, 3))
    yield outer("src0-permuted", Operand("F32", (5, 4, 3), nb=(4, 60, 20, 240)), b)
    yield outer("src1-transposed", a, Operand("F32", (7, 4, 3), nb=(16, 4, 112, 336)))
    yield outer("src1-gaps", a, Operand("F32", (7, 4, 3), nb=(8, 64, 320, 960)))
    yield outer("k0", Operand("F32", (5, 0)), Operand("F32", (7, 0)))
    yield outer("n0", Operand("F32", (5, 4)), Operand("F32", (0, 4)))
    yield outer(
        "special", Operand("F32", (4, 3), fill="values:1,nan,2,inf,3,4,5,6,7,8,-inf,-0"), Operand("F32", (2, 3), fill="uniform:1:2")
    )


def outer(id: str, a: Operand, b: Operand) -> Case:
    """Return a case whose destination follows from its operands."""
    (m, _, _, _), (n, _, n2, n3) = a.quad, b.quad
    return Case(id, Operand("F32", (m, n, n2, n3)), (a, b))


OP = Op(
    name="OUT_PROD",
    sources=(Source("a", TYPES, "ne = (m, k, b2, b3)"), Source("b", ("F32",), "ne = (n, k, r2*b2, r3*b3), any strides")),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=FLOAT32,
)
