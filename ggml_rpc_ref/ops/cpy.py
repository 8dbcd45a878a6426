"""CPY: a copy of one tensor into another, which keeps its own type and strides.

    dst[k] = src0[k]     for k counting elements in ne order

src0: any type, any strides. src1: what is written to: dst is a view of all of it (ggml_cpy), or is src1 itself (ggml_cast, where a
node is its own source). dst: src1's type, ne and nb. Pairs of types: see `copying`. Empty: nothing is computed.

Source: ggml_cpy_impl and ggml_cast in ggml.c, ggml_compute_forward_dup in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import ANY, Node, Op, Source, before
from ggml_rpc_ref.ops.shared.copying import copy, require_bf16_without_gaps, require_copy, require_no_integers
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse a destination that is not all of src1, and what `require_copy` refuses."""
    src1, dst = node.source(1), node.dst
    node.require(
        (dst.dtype, dst.ne, dst.nb) == (src1.dtype, src1.ne, src1.nb), "type, ne and nb of src1", (dst.dtype.name, dst.ne, dst.nb)
    )
    require_copy(node)


def shape_without_integers(node: Node) -> None:
    """Refuse what `shape` does, and conversions between F32 and I32."""
    require_no_integers(node)
    shape(node)


def shape_of_bf16_in_order(node: Node) -> None:
    """Refuse what `shape_without_integers` does, and F16 to BF16 with gaps."""
    require_bf16_without_gaps(node)
    shape_without_integers(node)


oracle = copy

OP = Op(
    name="CPY",
    sources=(Source("x", ANY, "any strides"), Source("into", ANY, "what dst is a view of: its type, ne and nb")),
    types=ANY,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    unread=(1,),
    earlier=(before("CPY.i32", shape=shape_without_integers), before("CPY.bf16", shape=shape_of_bf16_in_order)),
)
