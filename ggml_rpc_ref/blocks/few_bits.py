"""The newest types of one and two bits: a half-precision scale, then the elements in order, the first in the lowest bits.

    Q1_0  18 bytes, 128 elements   0 d  f16    2 qs  16 bytes, one bit each     x = d where the bit is set, else -d
    Q2_0  18 bytes,  64 elements   0 d  f16    2 qs  16 bytes, two bits each    x = d * (q - 1)

Quantising:

    Q1_0   d = the mean magnitude     a bit is set where x >= 0
    Q2_0   d = the largest magnitude  q = x * (1 / d), rounded half away from zero, + 1, held to 0..3

In Q2_0 the product is 0 where d is 0, and q is 0 where it fits no int32 or is NaN; a NaN is never the largest.

Sources: ggml-common.h (block_q1_0, block_q2_0), ggml-quants.c (dequantize_row_q1_0, quantize_row_q1_0_ref ...) of 8.0.0.
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import (
    BlockFormat,
    Blocks,
    Levels,
    Values,
    columns,
    f32,
    inverse,
    largest_magnitude,
    ordered_sum,
    round_half_away,
    scaled,
    to_half,
    truncate_to_int32,
)

Q1_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q2_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

SHIFTS = np.array([0, 2, 4, 6], np.uint8)


def dequantise_q1_0(blocks: Blocks) -> Values:
    """x = d or -d."""
    bits = np.unpackbits(blocks["qs"], axis=1, bitorder="little")
    # 1 or -1 times d: a product with -1 is exact, and flips the sign of a NaN as upstream's negation does
    return scaled(bits.view(np.int8) * np.int8(2) - np.int8(1), blocks["d"])


def dequantise_q2_0(blocks: Blocks) -> Values:
    """x = d * (q - 1)."""
    levels: Levels = (blocks["qs"][:, :, None] >> SHIFTS & 3).reshape(len(blocks), 64)
    return scaled(levels.view(np.int8) - np.int8(1), blocks["d"])


def quantise_q1_0(values: Values) -> Blocks:
    """The signs, and the mean magnitude, summed from first to last."""
    blocks = np.empty(len(values), Q1_0)
    blocks["d"] = to_half(ordered_sum(np.abs(columns(values))) / f32(128))
    blocks["qs"] = np.packbits(values >= 0, axis=1, bitorder="little")
    return blocks


def quantise_q2_0(values: Values) -> Blocks:
    """q = x / d, rounded, + 1."""
    x = columns(values)
    d = largest_magnitude(x)[0]
    levels = np.clip(truncate_to_int32(round_half_away(x * inverse(d))).astype(np.int64) + 1, 0, 3).astype(np.uint8)
    blocks = np.empty(len(values), Q2_0)
    blocks["d"] = to_half(d)
    blocks["qs"] = np.bitwise_or.reduce(levels.T.reshape(len(values), 16, 4) << SHIFTS, axis=-1)
    return blocks


FORMATS: dict[str, BlockFormat] = {
    "Q1_0": BlockFormat(Q1_0, dequantise_q1_0, quantise_q1_0),
    "Q2_0": BlockFormat(Q2_0, dequantise_q2_0, quantise_q2_0),
}
