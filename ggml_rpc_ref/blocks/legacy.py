"""The 32-element types: one or two half-precision numbers and 32 small integers.

    Q4_0  18 bytes    0 d    f16        2 qs  16 bytes                  x = d * (q - 8)
    Q4_1  20 bytes    0 d, 2 m   f16    4 qs  16 bytes                  x = q * d + m
    Q5_0  22 bytes    0 d    f16        2 qh  32 bits    6 qs 16 bytes  x = d * (q - 16)
    Q5_1  24 bytes    0 d, 2 m   f16    4 qh  32 bits    8 qs 16 bytes  x = q * d + m
    Q8_0  34 bytes    0 d    f16        2 qs  32 int8                   x = d * q
    Q8_1  36 bytes    0 d, 2 s   f16    4 qs  32 int8                   x = d * q;  s = d * (sum of q), for dot products

    qs    byte j:  qqqqpppp   p: q of element j, low four bits    q: q of element j + 16, low four bits
    qh    bit j of the little-endian word: bit 4 of q of element j

Quantising: with X the element of largest magnitude (the first of equals), lo the smallest and hi the largest element; d is used
as it is, not as it is stored, and 1 / d and 127 / |X| are rounded before they multiply:

    Q4_0   d = X / -8           q = x * (1 / d) + 8.5            Q4_1   d = (hi - lo) / 15   m = lo   q = (x - lo) * (1 / d) + 0.5
    Q5_0   d = X / -16          q = x * (1 / d) + 16.5           Q5_1   d = (hi - lo) / 31   m = lo   q = (x - lo) * (1 / d) + 0.5
    Q8_0   d = |X| / 127        q = x * (127 / |X|)              Q8_1   as Q8_0, s of d as it is and the levels that are stored

q is cut to a whole number, 0 where that fits no int32, and held to the highest level; in Q8_0 and Q8_1 it is rounded to nearest
even, and where 127 / |X| overflows all q are -128 and s is 0. Where d or |X| is 0 the factor is 0. What becomes of NaN and
infinities among the elements is in the vectors alone.

Q8_0 and Q8_1 have two upstream routines that differ. The portable one (quantize_row_q8_0_ref, and the only one without
AVX) multiplies by 1 / (amax / 127) and rounds ties away from zero. The one for AVX (ggml-cpu/arch/x86/quants.c)
multiplies by 127 / amax, rounds ties to even and saturates; the genuine server on x86-64 runs that one, and so do we. On
ten million normally distributed elements the two differ in fifteen levels, each by one.

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
    made,
    nibbles,
    pack_nibbles,
    scaled,
    smallest_and_largest,
    to_half,
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
    fifth = np.unpackbits(blocks["qh"], axis=1, bitorder="little")
    levels: Levels = nibbles(blocks["qs"]) | fifth << 4
    return levels


def dequantise_q8(blocks: Blocks) -> Values:
    """x = q * d, for Q8_0 and Q8_1."""
    return scaled(blocks["qs"], blocks["d"])


def quantise_q4_0(values: Values) -> Blocks:
    """q = int8(x / d + 8.5), at most 15; d = the element of largest magnitude / -8."""
    x = columns(values)
    d = largest_magnitude(x)[1] / f32(-8)
    # signed, as upstream's MIN(15, (int8_t)...): a level that has overflowed into the negative passes it, high bits and all
    levels = low_byte(truncate_to_int32(x * inverse(d) + f32(8.5))).view(np.int8)
    blocks = np.empty(len(values), Q4_0)
    blocks["d"] = to_half(d)
    blocks["qs"] = pack_nibbles(np.minimum(levels, np.int8(15)).view(np.uint8).T)
    return blocks


def quantise_q4_1(values: Values) -> Blocks:
    """q = int8((x - m) / d + 0.5), at most 15; m = the smallest element, d = (largest - smallest) / 15."""
    x, d, m = minimum_and_step(values, 15)
    levels = low_byte(truncate_to_int32((x - m) * inverse(d) + f32(0.5))).view(np.int8)
    blocks = np.empty(len(values), Q4_1)
    blocks["d"], blocks["m"] = to_half(d), to_half(m)
    blocks["qs"] = pack_nibbles(np.minimum(levels, np.int8(15)).view(np.uint8).T)
    return blocks


def quantise_q5_0(values: Values) -> Blocks:
    """q = int8(x / d + 16.5), at most 31; d = the element of largest magnitude / -16."""
    x = columns(values)
    d = largest_magnitude(x)[1] / f32(-16)
    levels = low_byte(truncate_to_int32(x * inverse(d) + f32(16.5))).view(np.int8)
    blocks = np.empty(len(values), Q5_0)
    blocks["d"] = to_half(d)
    store_five_bits(blocks, np.minimum(levels, np.int8(31)).view(np.uint8).T)
    return blocks


def quantise_q5_1(values: Values) -> Blocks:
    """q = uint8((x - m) / d + 0.5); m = the smallest element, d = (largest - smallest) / 31."""
    x, d, m = minimum_and_step(values, 31)
    # unsigned and without a limit, unlike Q4_1: quantize_row_q5_1_ref has none
    levels = low_byte(truncate_to_int32((x - m) * inverse(d) + f32(0.5)))
    blocks = np.empty(len(values), Q5_1)
    blocks["d"], blocks["m"] = to_half(d), to_half(m)
    store_five_bits(blocks, levels.T)
    return blocks


def quantise_q8_0(values: Values) -> Blocks:
    """q = x * (127 / amax) to nearest even; d = amax / 127 (the AVX routine, see above)."""
    levels, d = avx_levels(values)
    blocks = np.empty(len(values), Q8_0)
    blocks["d"] = to_half(d)
    blocks["qs"] = np.clip(levels, -128, 127).T
    return blocks


def quantise_q8_1(values: Values) -> Blocks:
    """As Q8_0, and s = d * (sum of q)."""
    levels, d = avx_levels(values)
    blocks = np.empty(len(values), Q8_1)
    blocks["d"] = to_half(d)
    # before saturation and in int32, which wraps (numpy would add in 64 bits): hsum_i32_8 runs before packs_epi32
    blocks["s"] = to_half(np.where(np.isnan(d), d, made(d * levels.sum(axis=0, dtype=np.int32).astype(f32))))
    blocks["qs"] = np.clip(levels, -128, 127).T
    return blocks


def minimum_and_step(values: Values, steps: int) -> tuple[Values, Values, Values]:
    """Return the columns of values, and per column (largest - smallest) / steps and the smallest element."""
    x = columns(values)
    # from FLT_MAX and -FLT_MAX, not from the first element: in a block of NaNs these two stay
    start = np.full(len(values), FLT_MAX)
    smallest, largest = smallest_and_largest(x, start, -start)
    return x, (largest - smallest) / f32(steps), smallest


def store_five_bits(blocks: Blocks, levels: Levels) -> None:
    """Undo `five_bits`: write levels 0..31 of shape (n, 32) into qs and qh."""
    blocks["qs"] = pack_nibbles(levels & 15)
    blocks["qh"] = np.packbits(levels >> 4 & 1, axis=1, bitorder="little")


def avx_levels(values: Values) -> tuple[Ints, Values]:
    """Return Q8_0's levels as columns, before saturation, and d."""
    x = columns(values)
    largest = avx_largest(np.abs(x))
    multiplier = np.where(largest != 0, f32(127) / largest, f32(0))
    # CVTPS2DQ too gives -2**31 for what does not fit, and saturation then -128
    return truncate_to_int32(np.rint(x * multiplier)), largest / f32(127)


def avx_largest(magnitudes: Values) -> Values:
    """Return the largest of each column in the order of the AVX routine, which decides what a NaN does to the maximum."""
    # registers of eight floats; then upper half against lower (extractf128), the same of four (movehl), and of two (movehdup)
    m = magnitudes[0:8]
    for lane in range(8, 32, 8):
        m = maxps(m, magnitudes[lane : lane + 8])
    m = maxps(m[4:8], m[0:4])
    m = maxps(m[0:2], m[2:4])
    return maxps(m[0], m[1])


def maxps(a: Values, b: Values) -> Values:
    """Return what MAXPS does: the second operand unless the first is greater."""
    return np.where(a > b, a, b)


FORMATS: dict[str, BlockFormat] = {
    "Q4_0": BlockFormat(Q4_0, dequantise_q4_0, quantise_q4_0),
    "Q4_1": BlockFormat(Q4_1, dequantise_q4_1, quantise_q4_1),
    "Q5_0": BlockFormat(Q5_0, dequantise_q5_0, quantise_q5_0),
    "Q5_1": BlockFormat(Q5_1, dequantise_q5_1, quantise_q5_1),
    "Q8_0": BlockFormat(Q8_0, dequantise_q8, quantise_q8_0),
    "Q8_1": BlockFormat(Q8_1, dequantise_q8, quantise_q8_1),
}
