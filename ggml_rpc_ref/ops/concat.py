"""CONCAT: two tensors joined along a dimension.

    dst[.., i, ..] = src0[.., i, ..] for i < ne[dim] of src0, else src1[.., i - ne[dim], ..]

src0, src1: any plain type, the same; the same ne but for dimension dim; any strides. dst: that type, ne[dim] the sum, any strides.
Bits are copied, NaN and all. Either may be empty along dim. Block types are refused: upstream steps by a block per element.

Source: ggml_concat in ggml.c, ggml_compute_forward_concat in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, PLAIN, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.tensor import Quad


def shape(node: Node) -> None:
    """Refuse an unknown dimension, differing types, other dimensions that differ, a result of another size."""
    src0, src1, dst, dim = node.source(0), node.source(1), node.dst, node.i32("dim")
    node.require(0 <= dim <= 3, "a dim of 0 to 3", dim)
    node.require(dst.dtype == src0.dtype == src1.dtype, "one type throughout", (src0.dtype.name, src1.dtype.name, dst.dtype.name))
    joined = _replaced(src0.ne, dim, src0.ne[dim] + src1.ne[dim])
    node.require(_replaced(src1.ne, dim, src0.ne[dim]) == src0.ne, f"src1.ne as src0's but for dim {dim}", src1.ne)
    node.require(dst.ne == joined, f"ne {joined}", dst.ne)


def _replaced(ne: Quad, dim: int, length: int) -> Quad:
    a, b, c, d = (length if place == dim else n for place, n in enumerate(ne))
    return (a, b, c, d)


def oracle(node: Node) -> None:
    """Copy both parts; aside first, where one of them might be overwritten before it is read."""
    src0, src1, dim = node.source(0), node.source(1), node.i32("dim")
    target = node.dst.array
    first, second = (x.copy() if np.may_share_memory(x, target) else x for x in (src0.array, src1.array))
    place, seam = (slice(None),) * (3 - dim), src0.ne[dim]
    target[(*place, slice(seam))] = first
    target[(*place, slice(seam, None))] = second


def cases() -> Iterator[Case]:
    """Each dimension, every type, strides on all sides, one part empty, special values."""
    for dim in range(4):
        a, b = [4, 3, 2, 2], [4, 3, 2, 2]
        b[dim] = 5
        joined = [*a]
        joined[dim] += 5
        yield Case(f"dim{dim}", Operand("F32", tuple(joined)), (Operand("F32", tuple(a)), Operand("F32", tuple(b))), {"dim": dim})
    for dtype in PLAIN[1:]:
        src = (Operand(dtype, (4, 3), fill="normal:100"), Operand(dtype, (4, 5), fill="normal:100"))
        yield Case(dtype.lower(), Operand(dtype, (4, 8)), src, {"dim": 1})
    permuted, gaps = Operand("F32", (4, 3, 2), (4, 32, 16, 96)), Operand("F32", (4, 3, 5), (8, 40, 160, 800))
    yield Case("strided", Operand("F32", (4, 3, 7), (12, 60, 200, 1400)), (permuted, gaps), {"dim": 2})
    yield Case(
        "transposed",
        Operand("F16", (7, 3)),
        (Operand("F16", (3, 3), (6, 2, 18, 18)), Operand("F16", (4, 3), (6, 2, 24, 24))),
        {"dim": 0},
    )
    yield Case("first-empty", Operand("F32", (4, 3)), (Operand("F32", (4, 0)), Operand("F32", (4, 3))), {"dim": 1})
    yield Case("second-empty", Operand("F32", (4, 3)), (Operand("F32", (4, 3)), Operand("F32", (0, 3))), {"dim": 0})
    special = Operand("F32", (16, 4), fill="special")
    yield Case("special", Operand("F32", (16, 8)), (special, special), {"dim": 1})


OP = Op(
    name="CONCAT",
    sources=(Source("a", PLAIN, "any strides"), Source("b", PLAIN, "a's type, and ne but for dim")),
    types=PLAIN,
    params=(Param("dim", "i32", 0, "along which dimension, 0 to 3"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
)
