"""SUM: add up all elements.

    dst = sum over all of src0

src0: F32, F16 or BF16, elements of a row neighbours, rows anywhere. dst: src0's type, one element.
NaN gives NaN, +inf with -inf gives NaN; a sum beyond F16's range is infinite there. No elements: 0.

Source: ggml_compute_forward_sum_f32 (sum in double), _f16 and _bf16 (in float) in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Case, Node, Op, Operand, Source, Tolerance
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks


def shape(node: Node) -> None:
    """Refuse a result of more than one element or of another type, gaps within rows."""
    src0 = node.source(0)
    node.require(node.dst.ne == (1, 1, 1, 1), "one element", node.dst.ne)
    node.require(node.dst.dtype == src0.dtype, f"type {src0.dtype.name} as the source", node.dst.dtype.name)
    require_dense_rows(node, src0)


def oracle(node: Node) -> None:
    """Add up in float64."""
    values, total = node.source(0).values(), np.float64(0)
    with np.errstate(all="ignore"):
        for block in row_blocks(node.source(0).ne):
            total += np.sum(values[block], dtype=np.float64)
        node.dst.store(np.asarray(total).astype(np.float32))


def cases() -> Iterator[Case]:
    """Every type; sizes around vector widths; views; overflow; NaN and infinities; nothing."""
    for dtype in FLOATS:
        for n in (1, 7, 33):
            yield Case(f"{dtype.lower()}-n{n}", Operand(dtype, (1,)), (Operand(dtype, (n, 3, 2, 2)),))
        yield Case(f"{dtype.lower()}-nan", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:1,nan,2"),))
        yield Case(f"{dtype.lower()}-inf", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:1,inf,2"),))
        yield Case(f"{dtype.lower()}-inf-inf", Operand(dtype, (1,)), (Operand(dtype, (3,), fill="values:-inf,inf,2"),))
        yield Case(f"{dtype.lower()}-empty", Operand(dtype, (1,)), (Operand(dtype, (3, 0)),))
        size = 4 if dtype == "F32" else 2
        permuted = Operand(dtype, (9, 4, 3), nb=(size, 27 * size, 9 * size, 108 * size))
        yield Case(f"{dtype.lower()}-permuted", Operand(dtype, (1,)), (permuted,))
    yield Case("f16-overflow", Operand("F16", (1,)), (Operand("F16", (9,), fill="values:60000"),))
    yield Case("f32-cancels", Operand("F32", (1,)), (Operand("F32", (3,), fill="values:1e8,1,-1e8"),))


OP = Op(
    name="SUM",
    sources=(Source("x", FLOATS, "any ne"),),
    types=FLOATS,
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=Tolerance(1e-5, 1e-4, 1e-10, "F16 and BF16 are added up in float32 there"),
)
