"""RMS_NORM: divide each row by its root mean square.

    dst[i] = src0[i] / sqrt(mean over the row of src0² + eps)

src0: F32 ne = (n, r1, r2, r3), dense rows. dst: F32, the same ne; may be src0's own memory. A row with NaN becomes NaN; a row
with an infinity, or squares that overflow float32, becomes 0 where finite and NaN where infinite. n = 0 or no rows: nothing is
computed. eps must not be negative or NaN (upstream asserts it).

Source: ggml_compute_forward_rms_norm_f32 in ggml-cpu/ops.cpp (sum of squares in double, scale in float).
"""

import numpy as np

from ggml_rpc_ref.ops.shared.norms import norm_op
from ggml_rpc_ref.tensor import Array, F32Array


def normalise(x: F32Array, eps: np.float32) -> Array:
    """Return the formula of some rows; squares in float32 and their sum in float64, as upstream."""
    mean = np.sum(x * x, axis=-1, dtype=np.float64, keepdims=True) / x.shape[-1]
    scaled: Array = x * (np.float32(1) / np.sqrt(mean.astype(np.float32) + eps))
    return scaled


OP = norm_op("RMS_NORM", normalise, "ne = (n, r1, r2, r3)", "added to the mean of squares, at least 0")
