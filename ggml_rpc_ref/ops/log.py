"""LOG: the natural logarithm of each element.

    dst[i] = ln x     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, dense rows; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32. 0 and -0
give -inf, negative elements and NaN give NaN. Empty: nothing is computed.

Source: op_log in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.shared.elementwise import unary_op
from ggml_rpc_ref.ops.tolerance import FLOAT32

OP = unary_op("LOG", lambda x: np.log(x.astype(np.float64)), FLOAT32)
