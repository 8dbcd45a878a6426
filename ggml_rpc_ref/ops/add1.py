"""ADD1: a number added to every element.

    dst[i] = src0[i] + src1[0]     in float32, rounded or quantised once to dst's type

src0: F32, F16, BF16 or a block type that the CPU backend can write, dense rows. src1: one element; F32, or src0's type where
that is F16 or BF16. dst: src0's type and ne, dense rows; may be src0's memory. With a block type dst has nb that do not
decrease and ne[3] = 1 (beyond, upstream steps by nb[0] instead of nb[3]). IEEE rules. Empty: nothing is computed.

Source: ggml_add1 in ggml.c, ggml_compute_forward_add1 in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS, Node, Op, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import EXACT

BLOCK_TYPES = tuple(name for name in WRITABLE_BLOCKS if name in READABLE_BLOCKS)


def shape(node: Node) -> None:
    """Refuse a src1 of several elements, other types or dimensions than src0's, gaps within rows, blocks in a fourth dimension."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    node.require(src1.ne == (1, 1, 1, 1), "src1 of one element", src1.ne, at=src1)
    allowed = ("F32", src0.dtype.name) if src0.dtype.name in FLOATS else ("F32",)
    node.require(src1.dtype.name in allowed, f"src1 of type {' or '.join(allowed)}", src1.dtype.name, at=src1)
    node.require((dst.dtype, dst.ne) == (src0.dtype, src0.ne), "type and ne of src0", (dst.dtype.name, dst.ne))
    require_dense_rows(node, src0, dst)
    if src0.dtype.is_quantised:
        node.require(sorted(dst.nb) == list(dst.nb), "nb that does not decrease", dst.nb)
        node.require(dst.ne[3] == 1, "ne[3] == 1 with a block type", dst.ne[3])


def oracle(node: Node) -> None:
    """Compute the formula."""
    number = node.source(1).values()[0, 0, 0, 0]
    map_values(node, lambda x: x + number)


OP = Op(
    name="ADD1",
    sources=(Source("a", FLOATS + BLOCK_TYPES, "dense rows"), Source("b", FLOATS, "one element")),
    types=FLOATS + BLOCK_TYPES,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
)
