"""CONT: the elements of a tensor without gaps, in order, with the same or other dimensions.

    dst[k] = src0[k]     for k counting elements in ne order

src0: any type, any strides. dst: the same number of elements, src0's type (a float type may also become another, F32 and I32 each
other, though no client asks). Block types keep their dimensions unless src0 is contiguous. Empty: nothing is computed.

Source: ggml_compute_forward_cont in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Source
from ggml_rpc_ref.ops.shared.copying import copy, require_copy
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse what `require_copy` refuses, and conversions from or to block types (upstream plans no memory for them here)."""
    src0, dst = node.source(0), node.dst
    converts_blocks = src0.dtype != dst.dtype and (src0.dtype.is_quantised or dst.dtype.is_quantised)
    node.require(not converts_blocks, f"type {src0.dtype.name}", dst.dtype.name)
    require_copy(node)


oracle = copy

OP = Op(
    name="CONT",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
