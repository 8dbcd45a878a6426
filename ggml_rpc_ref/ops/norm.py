"""NORM: each row shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each row

src0, dst: F32, the same ne, dense rows; may share memory. eps must not be negative or NaN (upstream asserts it). A row with NaN
or an infinity becomes NaN throughout. Squares are taken in float32: a row in which one overflows becomes 0. A row of equal
elements becomes 0 (0 / 0 = NaN where eps is 0). Empty: nothing is computed.

Source: ggml_compute_forward_norm_f32 in ggml-cpu/ops.cpp (sum in double, mean, differences and squares in float).
"""

import numpy as np

from ggml_rpc_ref.ops.op import later
from ggml_rpc_ref.ops.shared.norms import norm_op, require_strided_norm
from ggml_rpc_ref.tensor import Array, F32Array


def normalise(x: F32Array, eps: np.float32) -> Array:
    """Return the formula of some rows; sum and mean are rounded to float32, because the differences are taken from that."""
    total = np.sum(x, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
    y = x - total / np.float32(x.shape[-1])
    variance = np.mean(np.square(y), axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
    scaled: Array = y * (np.float32(1) / np.sqrt(variance + eps))
    return scaled


STRIDES = later("NORM.strides", shape=require_strided_norm)

OP = norm_op("NORM", normalise, "dense rows", "added to the variance, at least 0", (STRIDES,))
