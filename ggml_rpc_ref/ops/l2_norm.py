"""L2_NORM: each row divided by its length.

    dst[i] = src0[i] / max(sqrt(sum of src0²), eps)     over each row

src0, dst: F32, the same ne, dense rows; may share memory. eps must not be negative or NaN (upstream asserts it). A row with NaN
is divided by eps (C's fmaxf ignores NaN); a row with an infinity becomes 0 where finite and NaN where infinite; zeros over eps
0 become NaN. Squares are taken in float32: they overflow. Empty: nothing is computed.

Source: ggml_compute_forward_l2_norm_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import later
from ggml_rpc_ref.ops.shared.norms import norm_op, require_strided_norm
from ggml_rpc_ref.tensor import Array, F32Array


def normalise(x: F32Array, eps: np.float32) -> Array:
    """Return the formula of some rows; squares in float32 and their sum in float64, as upstream."""
    length = np.sqrt(np.sum(x * x, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32))
    return x * (np.float32(1) / np.fmax(length, eps))


STRIDES = later("L2_NORM.strides", shape=require_strided_norm)

OP = norm_op("L2_NORM", normalise, "dense rows", "the least length, at least 0", (STRIDES,))
