"""SQRT: the square root of each element.

    dst[i] = √x     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, rows dense; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32.
Negative elements and NaN give NaN, -0 stays -0. Empty: nothing is computed.

Source: op_sqrt in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values, require_unary
from ggml_rpc_ref.ops.tolerance import EXACT

shape = require_unary


def oracle(node: Node) -> None:
    """Compute the formula in float32, which rounds it correctly."""
    map_values(node, np.sqrt)


OP = Op(
    name="SQRT",
    sources=(Source("x", FLOATS, "rows dense"),),
    types=FLOATS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=True,
)
