"""SQRT: the square root of each element.

    dst[i] = √x     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, dense rows; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32. Negative
elements and NaN give NaN, -0 stays -0. Empty: nothing is computed.

Source: op_sqrt in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.shared.elementwise import unary_op
from ggml_rpc_ref.ops.tolerance import EXACT

OP = unary_op("SQRT", np.sqrt, EXACT)  # IEEE 754 rounds it correctly, so all implementations agree
