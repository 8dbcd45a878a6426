"""TRI: a triangle of every matrix, zero elsewhere.

    dst[i3][i2][j][i] = src0[i3][i2][j][i] where the triangle holds (i, j), else 0

type: 0 upper with diagonal (i >= j), 1 upper (i > j), 2 lower with diagonal (i <= j), 3 lower (i < j). src0: F32, contiguous,
ne = (n, n, b2, b3). dst: F32, the same ne, dense rows; may be src0's own memory. Elements that are kept are copied bit by bit;
NaN outside the triangle becomes 0. Empty: nothing is computed.

Source: ggml_compute_forward_tri_f32 in ggml-cpu/ops.cpp, ggml_tri in ggml.c.
"""

from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.slabs import element_blocks
from ggml_rpc_ref.ops.tolerance import EXACT

HOLDS: dict[int, Callable[[Any, Any], Any]] = {0: ge, 1: gt, 2: le, 3: lt}
"""ggml_tri_type to the relation of column and row that the triangle holds."""


def shape(node: Node) -> None:
    """Refuse matrices that are not square, gaps, an unknown type."""
    src0 = node.source(0)
    node.require(src0.ne[0] == src0.ne[1] and src0.is_contiguous, "square matrices without gaps", src0.ne, at=src0)
    node.require(node.dst.ne == src0.ne, f"ne {src0.ne} as the source", node.dst.ne)
    require_contiguous_rows(node, node.dst)
    node.require(node.i32("type") in HOLDS, "type 0, 1, 2 or 3", node.i32("type"))


def oracle(node: Node) -> None:
    """Keep the triangle."""
    source, result, holds = node.source(0).array, node.dst.array, HOLDS[node.i32("type")]
    row, column = np.arange(node.dst.ne[1])[:, None], np.arange(node.dst.ne[0])
    for block in element_blocks(node.dst.ne):
        result[block] = np.where(holds(column[block[3]], row[block[2]]), source[block], np.float32(0))


OP = Op(
    name="TRI",
    sources=(Source("x", ("F32",), "ne = (n, n, b2, b3)"),),
    types=("F32",),
    params=(Param("type", "i32", 0, "ggml_tri_type: 0 upper with diagonal, 1 upper, 2 lower with diagonal, 3 lower"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=(0,),
)
