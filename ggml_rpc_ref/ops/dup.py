"""DUP: a copy of a tensor.

    dst[k] = src0[k]     for k counting elements in ne order

src0: any type, any strides. dst: the same number of elements, src0's type or one that `copying` converts floats to; may be
src0's own memory. A client makes it with src0's type and ne only; a block type is not converted to F32 here (upstream would
read a src1 that DUP does not have). Empty: nothing is computed.

Source: ggml_compute_forward_dup in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Source
from ggml_rpc_ref.ops.shared.copying import copy, require_copy
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse what `require_copy` refuses, and block types to F32."""
    src0 = node.source(0)
    node.require(not src0.dtype.is_quantised or node.dst.dtype == src0.dtype, f"type {src0.dtype.name}", node.dst.dtype.name)
    require_copy(node)


oracle = copy

OP = Op(
    name="DUP",
    sources=(Source("x", ANY, "any strides"),),
    types=ANY,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
)
