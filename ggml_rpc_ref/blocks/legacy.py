"""The 32-element types: one or two half-precision numbers and 32 small integers.

    Q4_0  18 bytes    0 d    f16        2 qs  16 bytes                  x = d * (q - 8)
    Q4_1  20 bytes    0 d, 2 m   f16    4 qs  16 bytes                  x = q * d + m
    Q5_0  22 bytes    0 d    f16        2 qh  32 bits    6 qs 16 bytes  x = d * (q - 16)
    Q5_1  24 bytes    0 d, 2 m   f16    4 qh  32 bits    8 qs 16 bytes  x = q * d + m
    Q8_0  34 bytes    0 d    f16        2 qs  32 int8                   x = d * q
    Q8_1  36 bytes    0 d, 2 s   f16    4 qs  32 int8                   x = d * q;  s = d * (sum of q), for dot products

    qs    byte j:  qqqqpppp   p: q of element j, low four bits    q: q of element j + 16, low four bits
    qh    bit j of the little-endian word: bit 4 of q of element j

Quantising: Q4_0 and Q5_0 map the element of largest magnitude to the most negative level, Q4_1 and Q5_1 the smallest
element to 0 and the largest to the highest level, Q8_0 and Q8_1 the largest magnitude to 127.

Q8_0 and Q8_1 have two upstream routines that differ. The portable one (quantize_row_q8_0_ref, and the only one without
AVX) multiplies by 1 / (amax / 127) and rounds ties away from zero. The one for AVX (ggml-cpu/arch/x86/quants.c)
multiplies by 127 / amax, rounds ties to even and saturates; the genuine server on x86-64 runs that one, and so do we. The
largest element's level is 127 in both; others part by one where the product lies next to a half.

Q8_1 has no upstream routine that turns it into floats (to_float is null); the formula above is what its dot products use.

Sources: ggml-common.h (block_q4_0 ...), ggml-quants.c (dequantize_row_*, quantize_row_*_ref), ggml-cpu/arch/x86/quants.c.
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import (
    BlockFormat,
    Blocks,
    Ints,
    Levels,
    Values,
    columns,
    f32,
    inverse,
    largest_magnitude,
    low_byte,
    nibbles,
    pack_nibbles,
    scaled,
    smallest_and_largest,
    to_half,
    to_half_f16c,
    truncate_to_int32,
)

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
Q8_1 = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])

FLT_MAX = np.finfo(f32).max


def dequantise_q4_0(blocks: Blocks) -> Values:
    """x = (q - 8) * d."""
    return scaled(nibbles(blocks["qs"]).view(np.int8) - np.int8(8), blocks["d"])


def dequantise_q4_1(blocks: Blocks) -> Values:
    """x = q * d + m."""
    values = scaled(nibbles(blocks["qs"]), blocks["d"])
    values += blocks["m"].astype(f32)[:, None]
    return values


def dequantise_q5_0(blocks: Blocks) -> Values:
    """x = (q - 16) * d."""
    return scaled(five_bits(blocks).view(np.int8) - np.int8(16), blocks["d"])


def dequantise_q5_1(blocks: Blocks) -> Values:
    """x = q * d + m."""
    values = scaled(five_bits(blocks), blocks["d"])
    values += blocks["m"].astype(f32)[:, None]
    return values


def five_bits(blocks: Blocks) -> Levels:
    """Join qs and qh into levels 0..31 of shape (n, 32)."""
    fifth: Levels = np.unpackbits(blocks["qh"], axis=1, bitorder="little")
    return np.bitwise_or(nibbles(blocks["qs"]), fifth << 4)


def dequantise_q8(blocks: Blocks) -> Values:
    """x = q * d, for Q8_0 and Q8_1."""
    return scaled(blocks["qs"], blocks["d"])


FORMATS: dict[str, BlockFormat] = {
    "Q4_0": BlockFormat(Q4_0, dequantise_q4_0),
    "Q4_1": BlockFormat(Q4_1, dequantise_q4_1),
    "Q5_0": BlockFormat(Q5_0, dequantise_q5_0),
    "Q5_1": BlockFormat(Q5_1, dequantise_q5_1),
    "Q8_0": BlockFormat(Q8_0, dequantise_q8),
    "Q8_1": BlockFormat(Q8_1, dequantise_q8),
}
