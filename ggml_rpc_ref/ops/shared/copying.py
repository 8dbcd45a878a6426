"""What DUP, CPY and CONT share: the elements of one tensor, counted in ne order, written to another in its type.

    dst[k] = src0[k]     for k counting elements in ne order on both sides

The same type: the bytes, unchanged. Between float types: rounded to nearest even, NaN stays NaN. F32 to I32: towards zero; NaN
and what does not fit become -2**31, as x86 converts. I32 to F32: rounded to nearest even. A block type to F32, and a float type
to a block type that the CPU backend can write (`op.WRITABLE_BLOCKS`).

With block types, layouts that upstream's loops misread are refused. To a block type: dst contiguous, src0 of dense rows that
are whole blocks of dst's type. To F32: dst's nb[0] = 4, and dst contiguous or of rows that are whole blocks. The same block
type: both contiguous, or of the same ne with dense rows, or dst with gaps.

Source: ggml_compute_forward_dup and the functions it calls in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS, Node
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks, part
from ggml_rpc_ref.tensor import Tensor, to_int32


def require_copy(node: Node) -> None:
    """Refuse another number of elements, types without a conversion, and block layouts that upstream's loops misread."""
    src, dst = node.source(0), node.dst
    node.require(dst.nelements == src.nelements, f"{src.nelements} elements as the source", dst.nelements)
    if src.dtype == dst.dtype:
        node.require(
            not src.dtype.is_quantised or moves_blocks(src, dst), "blocks laid out alike, or a result with gaps", src.nb, at=src
        )
    elif src.dtype.name in FLOATS and dst.dtype.name in WRITABLE_BLOCKS:
        node.require(dst.is_contiguous, "a contiguous result of a block type", dst.nb)
        require_dense_rows(node, src)
        node.require(src.ne[0] % dst.dtype.block == 0, f"src0.ne[0] a multiple of {dst.dtype.block}", src.ne[0], at=src)
    elif src.dtype.name in READABLE_BLOCKS and dst.dtype.name == "F32":
        require_dense_rows(node, dst)
        node.require(
            dst.is_contiguous or dst.ne[0] % src.dtype.block == 0,
            f"contiguous, or ne[0] a multiple of {src.dtype.block}",
            dst.ne[0],
        )
    else:
        pair = (src.dtype.name, dst.dtype.name)
        plain = pair[0] in FLOATS and pair[1] in FLOATS
        known = src.dtype.name in (*FLOATS, "I32") or src.dtype.name in READABLE_BLOCKS
        convertible = plain or pair in {("F32", "I32"), ("I32", "F32")}
        node.require(convertible, "types that can be converted", pair, at=dst if known else src)


def require_no_integers(node: Node) -> None:
    """Refuse conversions between F32 and I32, which came later."""
    pair = (node.source(0).dtype.name, node.dst.dtype.name)
    node.require(pair not in {("F32", "I32"), ("I32", "F32")}, "types that can be converted", pair)


def require_bf16_without_gaps(node: Node) -> None:
    """Refuse F16 to BF16 where elements of the source or of the result lie apart, which came later."""
    src, dst = node.source(0), node.dst
    if (src.dtype.name, dst.dtype.name) == ("F16", "BF16"):
        require_dense_rows(node, src)
        node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def moves_blocks(src: Tensor, dst: Tensor) -> bool:
    """Whether upstream copies blocks of one type to the right place.

    It moves everything at once, or row by row, or block by block into a result with gaps; into a contiguous result of other
    dimensions it counts elements where it should count blocks (ggml_compute_forward_dup_bytes) and writes beyond the end.
    """
    if src.is_contiguous and dst.is_contiguous:
        return True
    same_rows = src.ne == dst.ne and src.nb[0] == dst.nb[0] == src.dtype.size
    return same_rows or not dst.is_contiguous


def copy(node: Node) -> None:
    """Write the source's elements to the destination."""
    src, dst = node.source(0), node.dst
    if src.dtype == dst.dtype:
        # not by way of values(): float32 would lose digits of I32, I64 and F64, requantising would change blocks
        dst.array[...] = src.array.reshape(dst.array.shape)
    elif dst.dtype.name == "I32":
        dst.array[...] = to_int32(src.array).reshape(dst.shape)
    else:
        values = src.values().reshape(dst.shape)
        for block in element_blocks(dst.ne):
            part(dst, block).store(values[block])
