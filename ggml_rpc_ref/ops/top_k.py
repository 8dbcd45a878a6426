"""TOP_K: where the k largest elements of each row are.

    dst[j] = the indices i of the k largest src0[j][i]

src0: F32 ne = (n, r1, r2, r3), elements of a row neighbours, rows evenly spaced. dst: I32, ne = (k, r1, r2, r3), likewise, k
<= n. ggml promises the set, not the order. Here, as upstream, the order is falling with the first two exchanged (upstream
exchanges them to show that nobody should rely on it). Which of several equal elements are chosen, and in which order, is
open: here the lower index. NaN counts as the smallest; upstream's result with NaN is undefined. k = 0 or no rows: nothing is
computed.

Source: ggml_compute_forward_top_k_f32 in ggml-cpu/ops.cpp, ggml_top_k in ggml.c.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.argsort import INT32_MAX, ranked
from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows, require_even_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse more elements than a row has, other rows than the source's, rows unevenly spaced or too long."""
    src0 = node.source(0)
    node.require(node.dst.ne[1:] == src0.ne[1:], f"ne (k, {src0.ne[1]}, {src0.ne[2]}, {src0.ne[3]})", node.dst.ne)
    node.require(node.dst.ne[0] <= src0.ne[0] <= INT32_MAX, f"k at most {src0.ne[0]}", node.dst.ne[0])
    require_dense_rows(node, src0, node.dst)
    require_even_rows(node, src0, node.dst)


def oracle(node: Node) -> None:
    """Sort each row and take the first k."""
    source, result, k = node.source(0), node.dst.array, node.dst.ne[0]
    for block in row_blocks(source.ne):
        found = ranked(source.array[block], falling=True)[..., :k]
        if k > 1:
            found[..., [0, 1]] = found[..., [1, 0]]
        result[block] = found


def cases() -> Iterator[Case]:
    """k from 1 to all, row lengths around vector widths, infinities, evenly spaced rows, nothing."""
    for n, k in ((1, 1), (7, 1), (7, 2), (7, 7), (33, 5), (1025, 40), (1025, 1025)):
        yield choosing(f"n{n}-k{k}", Operand("F32", (n, 3, 2), fill="permutation"), k)
    yield choosing("normal", Operand("F32", (100, 5)), 10)
    yield choosing("infinities", Operand("F32", (5, 2), fill="values:1,inf,-inf,3e38,-2"), 3)
    yield choosing("gaps", Operand("F32", (5, 4, 2), nb=(4, 32, 128, 256)), 2)
    yield choosing("k0", Operand("F32", (5, 4)), 0)


def choosing(id: str, x: Operand, k: int) -> Case:
    """Return a case whose destination follows from x."""
    return Case(id, Operand("I32", (k, *x.quad[1:])), (x,))


OP = Op(
    name="TOP_K",
    sources=(Source("x", ("F32",), "ne = (n, r1, r2, r3)"),),
    types=("I32",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
