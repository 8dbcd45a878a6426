"""DIV: the quotient of two tensors, element by element, with the second one broadcast.

    dst[i] = src0[i] / src1[i mod ne of src1]     in float32, rounded once to dst's type

src0: ne, dense rows. src1: each dimension divides src0's, any strides. dst: src0's ne, dense rows; may be the memory of either
source. Types: see `arithmetic.TYPES`. IEEE rules for NaN, infinities and zeros. Empty: nothing is computed.

Source: apply_binary_op in ggml-cpu/binary-ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.shared.arithmetic import binary_op

OP = binary_op("DIV", np.divide)
