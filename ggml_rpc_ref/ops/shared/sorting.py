"""What ARGSORT and TOP_K share."""

import numpy as np

from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array, F32Array

INT32_MAX = 2**31 - 1


def ranked(rows: F32Array, falling: bool) -> Array:
    """Return the indices of each row in the order of its values, NaN last."""
    # negated rather than reversed: a reversal would also reverse equal elements and put NaN first
    return np.argsort(-rows if falling else rows, axis=-1, kind="stable")


def exchanged(row: F32Array, falling: bool) -> Array:
    """Return the indices of a row as upstream's exchange sort leaves them: each place takes every smaller element that follows.

    Nothing is smaller than NaN, and NaN than nothing, so a place that holds one keeps it. Seen with the genuine 2.0.0.
    """
    values, order = -row if falling else row, np.arange(len(row))
    for place in range(len(row)):
        checkpoint()
        rest = values[order[place:]]
        if np.isnan(rest[0]):
            continue
        # the places whose element is below all before it, one exchange each: every one of them gets the element of the one before
        below = np.flatnonzero(rest[1:] < np.fmin.accumulate(rest)[:-1]) + 1
        turns = place + np.concatenate(([0], below))
        order[turns] = order[np.roll(turns, 1)]
    return order
