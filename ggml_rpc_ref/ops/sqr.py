"""SQR: the square of each element.

    dst[i] = x²     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, dense rows; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32. Infinities
stay, NaN stays; what overflows becomes infinite. Empty: nothing is computed.

Source: op_sqr in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.shared.elementwise import unary_op
from ggml_rpc_ref.ops.tolerance import EXACT

OP = unary_op("SQR", np.square, EXACT)  # IEEE 754 rounds it correctly, so all implementations agree
