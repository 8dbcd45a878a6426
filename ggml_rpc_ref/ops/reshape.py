"""RESHAPE: the same elements in the same order with other dimensions; computes nothing.

    dst[i] = src0[i]     for i counting elements in ne order

src0: any type, contiguous. dst: the same type and number of elements, contiguous, in src0's memory at its first byte.
Empty dimensions: both are empty.

Source: ggml_reshape in ggml.c.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, require_same_memory, require_same_type
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse another type, place or number of elements than the source's, and gaps on either side."""
    src0 = node.source(0)
    require_same_type(node)
    node.require(node.dst.nelements == src0.nelements, f"{src0.nelements} elements as the source", node.dst.nelements)
    node.require(src0.is_contiguous, "a contiguous source", src0.nb, at=src0)
    node.require(node.dst.is_contiguous, "a contiguous result", node.dst.nb)


oracle = compute_nothing

OP = Op(
    name="RESHAPE",
    sources=(Source("x", ANY, "contiguous"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    placement=require_same_memory,
    tolerance=EXACT,
    view=True,
)
