"""PERMUTE: the same elements with their dimensions in another order; computes nothing.

    dst.ne[axis[i]] = src0.ne[i], dst.nb[axis[i]] = src0.nb[i]

src0: any type, any strides. dst: the same type and memory. Axis i of the source becomes axis axis[i] of the result.

Source: ggml_permute in ggml.c.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.views import compute_nothing, permuted, require_same_memory, require_same_type
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse axes that are not a permutation, and a geometry that is not the source's under it."""
    src0, axes = node.source(0), node.i32s("axes")
    require_same_type(node)
    node.require(sorted(axes) == [0, 1, 2, 3], "axes 0 to 3, each once", axes)
    node.require(node.dst.ne == permuted(src0.ne, axes), f"ne {permuted(src0.ne, axes)}", node.dst.ne)
    node.require(node.dst.nb == permuted(src0.nb, axes), f"nb {permuted(src0.nb, axes)}", node.dst.nb)


oracle = compute_nothing


OP = Op(
    name="PERMUTE",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    params=(Param("axes", "i32", 0, "where each axis of x goes, a permutation of 0 to 3", count=4),),
    shape=shape,
    oracle=oracle,
    placement=require_same_memory,
    tolerance=EXACT,
    view=True,
)
