"""CONCAT: two tensors joined along a dimension.

    dst[.., i, ..] = src0[.., i, ..] for i < ne[dim] of src0, else src1[.., i - ne[dim], ..]

src0, src1: any plain type, the same; the same ne but for dimension dim; any strides. dst: that type, ne[dim] the sum, any strides.
Bits are copied, NaN and all. Either may be empty along dim. Block types are refused: upstream steps by a block per element.

Source: ggml_concat in ggml.c, ggml_compute_forward_concat in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import BLOCKS, PLAIN, Node, Op, Param, Source, later
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows, require_type
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Quad


def require_joined(node: Node) -> None:
    """Refuse an unknown dimension, differing types, other dimensions that differ, a result of another size."""
    src0, src1, dst, dim = node.source(0), node.source(1), node.dst, node.i32("dim")
    node.require(0 <= dim <= 3, "dim from 0 to 3", dim)
    require_type(node, src0.dtype, src1, dst)
    joined = _replaced(src0.ne, dim, src0.ne[dim] + src1.ne[dim])
    node.require(_replaced(src1.ne, dim, src0.ne[dim]) == src0.ne, f"src1.ne as src0's but for dim {dim}", src1.ne, at=src1)
    node.require(dst.ne == joined, f"ne {joined}", dst.ne)


def shape(node: Node) -> None:
    """Refuse what does not go together, and of block types gaps, and rows that are not whole blocks."""
    require_joined(node)
    if node.dst.dtype.is_quantised:
        _require_whole_blocks(node)
        for tensor in (node.source(0), node.source(1)):
            node.require(tensor.is_contiguous, "a contiguous source", tensor.nb, at=tensor)
        require_dense_rows(node, node.dst)


def shape_of_rows(node: Node) -> None:
    """Refuse what does not go together, gaps within rows, rows that are not whole blocks."""
    require_joined(node)
    _require_whole_blocks(node)
    require_contiguous_rows(node, node.source(0), node.source(1))
    require_dense_rows(node, node.dst)


def _require_whole_blocks(node: Node) -> None:
    for tensor in (node.source(0), node.source(1)):
        whole = tensor.ne[0] % tensor.dtype.block == 0
        node.require(whole, f"ne[0] a multiple of {tensor.dtype.block}", tensor.ne[0], at=tensor)


def _replaced(ne: Quad, dim: int, length: int) -> Quad:
    a, b, c, d = (length if place == dim else n for place, n in enumerate(ne))
    return (a, b, c, d)


def oracle(node: Node) -> None:
    """Copy both parts, by way of a copy if one of them may be overwritten before it is read."""
    src0, src1, dim = node.source(0), node.source(1), node.i32("dim")
    target = node.dst.array
    # may_share_memory compares bounds only: a needless copy is cheap, the exact question can take exponential time
    first, second = (x.copy() if np.may_share_memory(x, target) else x for x in (src0.array, src1.array))
    # an array of blocks has one entry for each
    place, seam = (slice(None),) * (3 - dim), src0.array.shape[3 - dim]
    target[(*place, slice(seam))] = first
    target[(*place, slice(seam, None))] = second


OP = Op(
    name="CONCAT",
    sources=(Source("a", PLAIN, "any strides"), Source("b", PLAIN, "a's type, and ne but for dim")),
    types=PLAIN,
    params=(Param("dim", "i32", 0, "along which dimension, 0 to 3"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    later=(
        later("CONCAT.blocks", takes={0: BLOCKS, 1: BLOCKS}, gives=BLOCKS),
        later("CONCAT.rows", shape=shape_of_rows),
    ),
)
