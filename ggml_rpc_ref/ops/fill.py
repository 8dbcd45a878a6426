"""FILL: every element the same number.

    dst[i] = c

src0: F32, of the same ne; its elements are not read, but a client names it. dst: F32, rows dense; may be src0's memory. c may be
NaN or infinite. Empty: nothing is computed.

Source: ggml_fill in ggml.c, ggml_compute_forward_fill_f32 in ggml-cpu/ops.cpp.
"""

from collections.abc import Iterator

import numpy as np

from ggml_rpc_ref.ops.op import EXACT, Case, Node, Op, Operand, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import require_dense_rows


def shape(node: Node) -> None:
    """Refuse another ne than the source's, and gaps within rows."""
    src0 = node.optional(0)
    node.require(src0 is None or src0.ne == node.dst.ne, "the source's ne", node.dst.ne)
    require_dense_rows(node, node.dst)


def oracle(node: Node) -> None:
    """Write the number everywhere."""
    node.dst.array[...] = np.float32(node.f32("c"))


def cases() -> Iterator[Case]:
    """Numbers of every kind; gaps; in place; nothing."""
    x = Operand("F32", (9, 4, 3, 2))
    for name, c in {"zero": 0.0, "minus-zero": -0.0, "pi": 3.14159265, "nan": float("nan"), "minus-inf": float("-inf")}.items():
        yield Case(name, Operand("F32", x.ne), (x,), {"c": c})
    yield Case("gaps", Operand("F32", x.ne, (4, 40, 200, 640)), (x,), {"c": 2.5})
    yield Case("in-place", Operand("F32", x.ne, alias="src0"), (x,), {"c": -1.0})
    yield Case("empty", Operand("F32", (0, 3)), (Operand("F32", (0, 3)),), {"c": 1.0})


OP = Op(
    name="FILL",
    sources=(Source("like", ("F32",), "of the result's ne, not read", optional=True),),
    types=("F32",),
    params=(Param("c", "f32", 0, "the number"),),
    shape=shape,
    oracle=oracle,
    cases=cases,
    tolerance=EXACT,
    in_place=True,
)
