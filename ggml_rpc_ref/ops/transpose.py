"""TRANSPOSE: rows and columns exchanged; computes nothing.

    dst.ne = (ne[1], ne[0], ne[2], ne[3]) of src0, nb alike

src0: any plain type, any strides. dst: the same type and memory.

Source: ggml_transpose in ggml.c.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, permuted, require_same_memory, require_same_type
from ggml_rpc_ref.ops.tolerance import EXACT

EXCHANGED = (1, 0, 2, 3)


def shape(node: Node) -> None:
    """Refuse a geometry that is not the source's with the first two axes exchanged."""
    src0 = node.source(0)
    require_same_type(node)
    node.require(node.dst.ne == permuted(src0.ne, EXCHANGED), f"ne {permuted(src0.ne, EXCHANGED)}", node.dst.ne)
    node.require(node.dst.nb == permuted(src0.nb, EXCHANGED), f"nb {permuted(src0.nb, EXCHANGED)}", node.dst.nb)


oracle = compute_nothing

OP = Op(
    name="TRANSPOSE",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    placement=require_same_memory,
    tolerance=EXACT,
    view=True,
)
