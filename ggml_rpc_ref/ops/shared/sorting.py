"""What ARGSORT and TOP_K share."""

import numpy as np

from ggml_rpc_ref.tensor import Array, F32Array

INT32_MAX = 2**31 - 1


def ranked(rows: F32Array, falling: bool) -> Array:
    """Return the indices of each row in the order of its values, NaN last."""
    # negated rather than reversed: a reversal would also reverse equal elements and put NaN first
    return np.argsort(-rows if falling else rows, axis=-1, kind="stable")
