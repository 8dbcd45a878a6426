"""CONCAT: two tensors joined along a dimension.

    dst[.., i, ..] = src0[.., i, ..] for i < ne[dim] of src0, else src1[.., i - ne[dim], ..]

src0, src1: any plain type, the same; the same ne but for dimension dim; any strides. dst: that type, ne[dim] the sum, any strides.
Bits are copied, NaN and all. Either may be empty along dim. Block types are refused: upstream steps by a block per element.

Source: ggml_concat in ggml.c, ggml_compute_forward_concat in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import PLAIN, Node, Op, Param, Source
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse an unknown dimension, differing types, other dimensions that differ, a result of another size."""
    src0, src1, dst, dim = node.source(0), node.source(1), node.dst, node.i32("dim")
    node.require(0 <= dim <= 3, "dim from 0 to 3", dim)
    node.require(dst.dtype == src0.dtype == src1.dtype, "one type throughout", (src0.dtype.name, src1.dtype.name, dst.dtype.name))
    joined = _replaced(src0.ne, dim, src0.ne[dim] + src1.ne[dim])
    node.require(_replaced(src1.ne, dim, src0.ne[dim]) == src0.ne, f"src1.ne as src0's but for dim {dim}", src1.ne, at=src1)
    node.require(dst.ne == joined, f"ne {joined}", dst.ne)


def _replaced(ne: Quad, dim: int, length: int) -> Quad:
    a, b, c, d = (length if place == dim else n for place, n in enumerate(ne))
    return (a, b, c, d)


def oracle(node: Node) -> None:
    """Copy both parts, by way of a copy if one of them may be overwritten before it is read."""
    src0, src1, dim = node.source(0), node.source(1), node.i32("dim")
    target = node.dst.array
    # may_share_memory compares bounds only: a needless copy is cheap, the exact question can take exponential time
    first, second = (x.copy() if np.may_share_memory(x, target) else x for x in (src0.array, src1.array))
    place, seam = (slice(None),) * (3 - dim), src0.ne[dim]
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
)
