"""CUMSUM: running sums along each row.

    dst[i] = src0[0] + src0[1] + ... + src0[i], added in this order in float32

src0: F32, elements of a row neighbours, rows anywhere. dst: F32, the same ne, elements of a row neighbours; may be src0's own
memory. NaN spreads to the right; +inf and -inf in one row give NaN. Empty: nothing is computed.

Source: ggml_vec_cumsum_f32 in ggml-cpu/vec.h, ggml_compute_forward_cumsum_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Source
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse other dimensions than the source's, gaps within rows."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Add from left to right: numpy's accumulate rounds after every step, as upstream's loop does."""
    source, result = node.source(0).array, node.dst.array
    with np.errstate(all="ignore"):
        for block in row_blocks(node.dst.ne):
            result[block] = np.add.accumulate(source[block], axis=-1)


def cases() -> Iterator[Case]:
    """Row lengths around vector widths, views, in place, special values, nothing."""
    for n in (1, 7, 16, 33, 1025):
        yield Case(f"n{n}", Operand("F32", (n, 3, 2, 2)), (Operand("F32", (n, 3, 2, 2)),))
    x = Operand("F32", (9, 4, 3, 2))
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,))
    yield Case("permuted", Operand("F32", x.ne, nb=(4, 48, 192, 640)), (Operand("F32", x.ne, nb=(4, 108, 36, 432)),))
    yield Case("special", Operand("F32", (16, 24)), (Operand("F32", (16, 24), fill="special"),))
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),))


OP = Op(
    name="CUMSUM",
    sources=(Source("x", ("F32",), "any ne"),),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
