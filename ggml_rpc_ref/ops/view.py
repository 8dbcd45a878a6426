"""VIEW: a window into the source's memory; computes nothing.

    dst.data = src0.data + offset

src0: any type. dst: the same type, any dimensions and strides. Where src0 is a view itself, the window may reach beyond it, as
long as it stays inside what both are views of (rule graph.view).

Source: ggml_view_impl in ggml.c.
"""

from collections.abc import Iterator

from ggml_rpc_ref.ops.op import ANY, EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory


def shape(node: Node) -> None:
    """Refuse another type than the source's, or another place than offset says."""
    require_same_memory(node, node.i32("offset"))


oracle = compute_nothing


def cases() -> Iterator[Case]:
    """A part of a row, some columns, every other row, a block type, nothing."""
    x = Operand("F32", (12, 7, 3))
    yield Case("part-of-row", Operand("F32", (5,), alias="src0", offset=16), (x,), {"offset": 16})
    yield Case("columns", Operand("F32", (4, 7, 3), (4, 48, 336, 1008), alias="src0", offset=8), (x,), {"offset": 8})
    yield Case("every-other-row", Operand("F32", (12, 3), (4, 96, 288, 288), alias="src0", offset=48), (x,), {"offset": 48})
    blocks = Operand("Q4_0", (64, 5))
    yield Case("blocks", Operand("Q4_0", (32, 5), (18, 36, 180, 180), alias="src0", offset=18), (blocks,), {"offset": 18})
    yield Case("empty", Operand("F32", (0,), alias="src0", offset=4), (x,), {"offset": 4})


OP = Op(
    name="VIEW",
    sources=(Source("x", ANY, "what is looked at"),),
    types=ANY,
    params=(Param("offset", "i64", 0, "bytes from the first byte of x to the first of the view (a size_t)"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    view=True,
)
