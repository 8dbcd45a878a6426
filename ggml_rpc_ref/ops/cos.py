"""COS: the cosine of each element, in radians.

    dst[i] = cos x     for x = src0[i], in float32, rounded once to dst's type

src0, dst: the same ne, dense rows; may share memory. Types: F32, F16 or BF16 on both sides, or F16 or BF16 to F32. Infinities
and NaN give NaN. Empty: nothing is computed.

Source: op_cos in ggml-cpu/unary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.shared.elementwise import unary_op
from ggml_rpc_ref.ops.tolerance import FLOAT32

OP = unary_op("COS", lambda x: np.cos(x.astype(np.float64)), FLOAT32)
