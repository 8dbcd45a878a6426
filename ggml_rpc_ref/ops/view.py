"""VIEW: a window into the source's memory; computes nothing.

    dst.data = src0.data + offset

src0: any type. dst: the same type, any dimensions and strides. Where src0 is a view itself, the window may reach beyond it, as
long as it stays inside what both are views of (rule graph.view).

Source: ggml_view_impl in ggml.c.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory, require_same_type
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse another type than the source's."""
    require_same_type(node)


def placement(node: Node) -> None:
    """Refuse a destination that does not begin `offset` bytes after the source."""
    require_same_memory(node, node.i32("offset"))


oracle = compute_nothing

OP = Op(
    name="VIEW",
    sources=(Source("x", ANY, "the viewed tensor"),),
    types=ANY,
    params=(Param("offset", "i64", 0, "bytes from the first byte of x to the first of the view (a size_t)"),),
    shape=shape,
    oracle=oracle,
    placement=placement,
    tolerance=EXACT,
    view=True,
)
