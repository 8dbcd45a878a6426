"""SUB: the difference of two tensors, element by element, the second repeated where it is smaller.

    dst[i] = src0[i] - src1[i mod ne of src1]     in float32, rounded once to dst's type

src0: ne, rows dense (nb[0] is the element size). src1: each dimension divides src0's, any strides. dst: src0's ne, rows dense; may
be the memory of either source. Types: see `arithmetic.TYPES`. IEEE rules for NaN, infinities and zeros. Empty: nothing is computed.

Source: apply_binary_op in ggml-cpu/binary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Node, Op, Source
from ggml_rpc_ref.ops.shared.arithmetic import combine, require_arithmetic
from ggml_rpc_ref.ops.tolerance import EXACT

shape = require_arithmetic


def oracle(node: Node) -> None:
    """Compute the difference."""
    combine(node, np.subtract)


OP = Op(
    name="SUB",
    sources=(Source("a", FLOATS, "ne of the result"), Source("b", FLOATS, "each dimension divides a's")),
    types=FLOATS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    in_place=True,
)
