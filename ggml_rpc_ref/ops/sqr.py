"""SQR: the square of each element.

    dst[i] = x²     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, rows dense; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32.
Infinities stay, NaN stays; what overflows becomes infinite. Empty: nothing is computed.

Source: op_sqr in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_unary
from ggml_rpc_ref.ops.tolerance import EXACT

shape = require_unary


def oracle(node: Node) -> None:
    """Compute the formula in float32, which rounds it correctly."""
    map_values(node, np.square)


OP = Op(
    name="SQR",
    sources=(Source("x", FLOATS, "rows dense"),),
    types=FLOATS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=True,
)
