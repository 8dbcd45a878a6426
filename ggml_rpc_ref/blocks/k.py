"""The K types: super-blocks of 256 elements, with sub-blocks whose scales are themselves quantised.

    Q2_K   84 bytes   0 scales 16 x (mmmmssss)    16 qs 64 x 2+2+2+2      80 d, 82 dmin  f16    16 sub-blocks of 16
    Q3_K  110 bytes   0 hmask 32    32 qs 64 x 2+2+2+2    96 scales 12    108 d  f16            16 sub-blocks of 16
    Q4_K  144 bytes   0 d, 2 dmin  f16    4 scales 12    16 qs 128 x 4+4                         8 sub-blocks of 32
    Q5_K  176 bytes   0 d, 2 dmin  f16    4 scales 12    16 qh 32    48 qs 128 x 4+4             8 sub-blocks of 32
    Q6_K  210 bytes   0 ql 128 x 4+4    128 qh 64 x 2+2+2+2    192 scales 16 int8    208 d f16  16 sub-blocks of 16
    Q8_K  292 bytes   0 d  float32    4 qs 256 int8    260 bsums 16 int16, sums of each 16 qs    one scale for all

    Q2_K, Q4_K, Q5_K   x = (d * s) * q - (dmin * m)        s, m: the sub-block's scale and minimum
    Q3_K, Q6_K         x = (d * s) * q
    Q8_K               x = d * q

Where the bits of q lie, for element e:

    two-bit fields (qs of Q2_K and Q3_K, qh of Q6_K)   byte e % 32 of the 32 bytes for e // 128, bits 2 * (e % 128 // 32)
    qs of Q4_K and Q5_K        byte e % 32 of the 32 bytes for e // 64; low half where e % 64 < 32
    ql of Q6_K                 byte e % 64 of the 64 bytes for e // 128; low half where e % 128 < 64
    hmask of Q3_K, qh of Q5_K  byte e % 32, bit e // 32: the next higher bit of q
    Q3_K's q is the three bits less 4, Q6_K's the six bits less 32

The twelve scale bytes of Q4_K and Q5_K hold eight six-bit scales s0..s7 and minimums m0..m7:

    byte 0-3    ssssss of s0..s3, above them the top two bits of s4..s7
    byte 4-7    mmmmmm of m0..m3, above them the top two bits of m4..m7
    byte 8-11   low four bits of s4..s7, above them the low four bits of m4..m7

The twelve scale bytes of Q3_K hold sixteen six-bit scales, stored as s + 32:

    byte 0-7    low four bits of s0..s7, above them the low four bits of s8..s15
    byte 8-11   top two bits of s0..s3, of s4..s7, of s8..s11, of s12..s15, from the low end up

Quantising, in float32 step by step in the order written; sums run from the first element to the last. X is the element of
largest magnitude, the first of equals, and "in a..b" means: what lies outside becomes a or b. near(v) rounds to nearest even;
it is the low 23 bits of the float32 v + 1.5 * 2**23, less 2**22, which also says what becomes of a v that is too large. A
near() that becomes a scale or a level of Q8_K is cut to its low byte: in Q6_K and Q8_K after "at most 127", in the others
before it is clamped.

    Q8_K   k = -127 / X    q = near(k * x), at most 127    d = 1 / k    all 0 where X is 0 (upstream leaves bsums unset)

Q2_K, Q4_K and Q5_K look for a scale a and a minimum b of each sub-block (L = 3, 15, 31; f = -1/2, -1, -1/2; N = 15, 20, 15; weights
w = |x| in Q2_K, else sqrt(sum of x² / 32) + |x|), with lo = min(0, least element) and hi the greatest:

    first      a = 1 / (L / (hi - lo)), b = lo, q = near(L / (hi - lo) * (x - lo)) in 0..L     (hi = lo: a = 0 and q = 0 stay)
    i = 0..N   q = near((f + 0.1 * i + L) / (hi - b) * (x - b)) in 0..L, with the best b so far; from this q
               D = sum w * sum wqq - (sum wq)², skipped unless D > 0;
               a = (sum w * sum wqx - sum wx * sum wq) / D, b = (sum wqq * sum wx - sum wq * sum wqx) / D;
               where b > 0 instead b = 0, a = sum wqx / sum wqq
    the best   has the least sum of w * |a * q + b - x| (Q2_K) or w * (a * q + b - x)² (the others), the first of equals
    block      with A the greatest a, at least 0, and M = 63 (15 in Q2_K): s = near(M / A * a), at most M, d = A / M; likewise m and
               dmin from -b; then q = near((x + dmin * m) / (d * s)) in 0..L with d and dmin as stored; the q found where d * s = 0

Q3_K and Q6_K look for a scale alone (L = 4, 32; w = x * x), with S = sum w * x * q and T = sum w * q * q:

    Q6_K       k = -L / X, then k = -(L + 0.1 * i) / X for i = -9..9 without 0: q = near(k * x) in -L..L - 1, a = S / T; a later
               one is better where T > 0 and S² > (a * S of the best so far) * T
    Q3_K       k = -L / X, q likewise; then five times each element in turn: with S' = S - w * x * q and T' = T - w * q * q, where
               S' > 0, p = near(x * T' / S') in -4..3 takes q's place, and S" = S' + w * x * p, T" = T' + w * p * p that of S and T,
               if it differs and T" > 0 and S"² * T > S² * T"; a = S / T in the end, 0 unless T > 0
    sub-block  of magnitudes below 1e-15: a = 0, and the q found is -L
    block      with A the a of largest magnitude: k = -32 / A, s = near(k * a) in -32..31 (Q3_K), or k = -128 / A, s = near(k * a),
               at most 127 (Q6_K); d = 1 / k; then q = near(x / (d * s)) in -L..L - 1 with d as stored, the q found where d * s = 0;
               A = 0 (Q3_K) or |A| < 1e-15 (Q6_K): d and all scale bytes are 0, in Q6_K every byte of the block

Sources: ggml-common.h (block_q2_K ...), ggml-quants.c (dequantize_row_q2_K ..., get_scale_min_k4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.blocks.common import (
    SMALLEST_MAGNITUDE,
    BlockFormat,
    Blocks,
    Ints,
    Levels,
    Values,
    bit_pairs,
    bit_planes,
    columns,
    f32,
    largest_magnitude,
    low_byte,
    nearest_int,
    nibbles,
    ordered_sum,
    pack_bit_pairs,
    pack_bit_planes,
    pack_nibbles,
    scaled,
    to_half,
)
from ggml_rpc_ref.blocks.k_search import search_q3, search_symmetric, search_with_minimum

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
Q8_K = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])


def dequantise_q2_k(blocks: Blocks) -> Values:
    """x = (d * s) * q - (dmin * m), s and m of four bits."""
    return scale_and_shift(blocks, bit_pairs(blocks["qs"]), blocks["scales"] & 15, blocks["scales"] >> 4)


def dequantise_q3_k(blocks: Blocks) -> Values:
    """x = (d * s) * q."""
    levels = bit_pairs(blocks["qs"]) | bit_planes(blocks["hmask"]) << 2
    return scale_only(blocks, levels.view(np.int8) - np.int8(4), six_bit_scales(blocks["scales"]) - np.int8(32))


def dequantise_q4_k(blocks: Blocks) -> Values:
    """x = (d * s) * q - (dmin * m)."""
    return scale_and_shift(blocks, four_bit_levels(blocks["qs"]), *six_bit_pairs(blocks["scales"]))


def dequantise_q5_k(blocks: Blocks) -> Values:
    """x = (d * s) * q - (dmin * m)."""
    levels = four_bit_levels(blocks["qs"]) | bit_planes(blocks["qh"]) << 4
    return scale_and_shift(blocks, levels, *six_bit_pairs(blocks["scales"]))


def dequantise_q6_k(blocks: Blocks) -> Values:
    """x = (d * s) * q."""
    low = nibbles(blocks["ql"].reshape(-1, 2, 64)).reshape(-1, 256)
    levels = low | bit_pairs(blocks["qh"]) << 4
    return scale_only(blocks, levels.view(np.int8) - np.int8(32), blocks["scales"])


def dequantise_q8_k(blocks: Blocks) -> Values:
    """x = d * q."""
    return scaled(blocks["qs"], blocks["d"])


def scale_and_shift(blocks: Blocks, levels: Levels, scales: Levels, minimums: Levels) -> Values:
    """Return (d * scale) * level - (dmin * minimum); levels (n, 256), scales and minimums (n, sub-blocks)."""
    n, parts = scales.shape
    values = scaled(levels.reshape(n, parts, -1), scaled(scales, blocks["d"]))
    values -= scaled(minimums, blocks["dmin"])[..., None]
    return values.reshape(n, 256)


def scale_only(blocks: Blocks, levels: Levels, scales: Levels) -> Values:
    """Return (d * scale) * level; levels (n, 256), scales (n, sub-blocks)."""
    n, parts = scales.shape
    return scaled(levels.reshape(n, parts, -1), scaled(scales, blocks["d"])).reshape(n, 256)


def four_bit_levels(packed: Levels) -> Levels:
    """Unpack qs of Q4_K and Q5_K, shape (n, 128), into (n, 256)."""
    return nibbles(packed.reshape(-1, 4, 32)).reshape(-1, 256)


def six_bit_pairs(packed: Levels) -> tuple[Levels, Levels]:
    """Unpack the scale bytes of Q4_K and Q5_K, shape (n, 12), into scales and minimums of shape (n, 8)."""
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    # `>> 6 << 4` brings the top two bits of a byte to bits 4 and 5, above four low bits from the third group
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minimums = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return scales, minimums


def six_bit_scales(packed: Levels) -> Levels:
    """Unpack the scale bytes of Q3_K, shape (n, 12), into int8 0..63 of shape (n, 16)."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    top = (packed[:, None, 8:12] >> shifts & 3).reshape(-1, 16)
    scales: Levels = (nibbles(packed[:, :8]) | top << 4).view(np.int8)
    return scales


def quantise_q2_k(values: Values) -> Blocks:
    """Search each sub-block, round scales and minimums to four bits, then take the levels that fit those."""
    x = columns(values.reshape(-1, 16))
    scales, minimums, levels = search_with_minimum(x, np.abs(x), 3, -0.5, 0.1, 15, absolute=True)
    d, four_bit_scales = rounded_scales(scales, 15, len(values))
    dmin, four_bit_minimums = rounded_scales(minimums, 15, len(values))
    blocks = np.empty(len(values), Q2_K)
    blocks["d"], blocks["dmin"] = d, dmin
    # without masks, as upstream, and read back: what the byte holds counts from here on
    blocks["scales"] = four_bit_scales | four_bit_minimums << 4
    part, shift = blocks["scales"] & 15, blocks["scales"] >> 4
    blocks["qs"] = pack_bit_pairs(final_levels(x, levels, scaled(part, d), scaled(shift, dmin), 0, 3))
    return blocks


def quantise_q3_k(values: Values) -> Blocks:
    """Search each sub-block, round the scales to six bits, then take the levels that fit those."""
    x = columns(values.reshape(-1, 16))
    scales, levels = search_q3(x)
    largest = largest_magnitude(columns(scales.reshape(-1, 16)))[1]
    # infinite where all scales are 0; np.where leaves that out of the two fields it would get into
    inverse_d = f32(-32) / largest
    # cut to int8 before it is clamped: upstream's variable is an int8_t
    rounded = np.clip(nearest_int(inverse_d[:, None] * scales.reshape(-1, 16)).astype(np.int8), -32, 31)
    blocks = np.zeros(len(values), Q3_K)
    blocks["d"] = np.where(largest != 0, to_half(f32(1) / inverse_d), np.float16(0))
    blocks["scales"] = np.where(largest[:, None] != 0, pack_six_bit_scales((rounded + np.int8(32)).view(np.uint8)), 0)
    final_scales = scaled(six_bit_scales(blocks["scales"]) - np.int8(32), blocks["d"])
    levels = final_levels(x, levels, final_scales, np.zeros_like(final_scales), -4, 3)
    blocks["qs"] = pack_bit_pairs(levels & 3)
    blocks["hmask"] = pack_bit_planes(levels >> 2)
    return blocks


def quantise_q4_k(values: Values) -> Blocks:
    """Search each sub-block, round scales and minimums to six bits, then take the levels that fit those."""
    blocks = np.empty(len(values), Q4_K)
    levels = scales_and_levels(values, blocks, 15, -1.0, 20)
    blocks["qs"] = pack_nibbles(levels.reshape(-1, 4, 64)).reshape(-1, 128)
    return blocks


def quantise_q5_k(values: Values) -> Blocks:
    """As Q4_K with one bit more."""
    blocks = np.empty(len(values), Q5_K)
    levels = scales_and_levels(values, blocks, 31, -0.5, 15)
    blocks["qs"] = pack_nibbles(levels.reshape(-1, 4, 64) & 15).reshape(-1, 128)
    blocks["qh"] = pack_bit_planes(levels >> 4)
    return blocks


def quantise_q6_k(values: Values) -> Blocks:
    """Search each sub-block, round the scales to eight bits, then take the levels that fit those."""
    x = columns(values.reshape(-1, 16))
    scales, levels = search_symmetric(x, 32)
    scales = scales.reshape(-1, 16)
    magnitude, largest = largest_magnitude(columns(scales))
    inverse_d = f32(-128) / largest
    blocks = np.empty(len(values), Q6_K)
    blocks["d"] = to_half(f32(1) / inverse_d)
    # limited before it is cut to int8, the other way round than in Q3_K
    blocks["scales"] = np.minimum(nearest_int(inverse_d[:, None] * scales), 127).astype(np.int8)
    final_scales = scaled(blocks["scales"], blocks["d"])
    levels = final_levels(x, levels, final_scales, np.zeros_like(final_scales), -32, 31)
    blocks["ql"] = pack_nibbles(levels.reshape(-1, 2, 128) & 15).reshape(-1, 128)
    blocks["qh"] = pack_bit_pairs(levels >> 4)
    # the whole block, levels too: upstream clears it by memset
    blocks[magnitude < SMALLEST_MAGNITUDE] = np.zeros(1, Q6_K)
    return blocks


def quantise_q8_k(values: Values) -> Blocks:
    """q = nearest(x / d), at most 127; d = the element of largest magnitude / -127.

    For an all-zero block upstream leaves bsums as they were in memory; here they are 0.
    """
    x = columns(values)
    magnitude, largest = largest_magnitude(x)
    # -127 and not -128: upstream's AVX kernel of IQ2_XXS needs it (comment in quantize_row_q8_K_ref)
    inverse_d = f32(-127) / largest
    zero = magnitude == 0
    levels = np.minimum(nearest_int(inverse_d * x), 127).astype(np.int8).T
    blocks = np.empty(len(values), Q8_K)
    blocks["d"] = np.where(zero, f32(0), f32(1) / inverse_d)
    blocks["qs"] = np.where(zero[:, None], np.int8(0), levels)
    blocks["bsums"] = blocks["qs"].reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
    return blocks


def scales_and_levels(values: Values, blocks: Blocks, limit: int, first: float, steps: int) -> Levels:
    """Do what Q4_K and Q5_K share: fill in d, dmin and scales of blocks, return the levels, shape (n, 256)."""
    x = columns(values.reshape(-1, 32))
    weights = np.sqrt(ordered_sum(x * x) / f32(32)) + np.abs(x)
    scales, minimums, levels = search_with_minimum(x, weights, limit, first, 0.1, steps, absolute=False)
    blocks["d"], six_bit_scales = rounded_scales(scales, 63, len(values))
    blocks["dmin"], six_bit_minimums = rounded_scales(minimums, 63, len(values))
    # limited after they were cut to a byte, as upstream's MIN(63, uint8_t)
    blocks["scales"] = pack_six_bit_pairs(np.minimum(six_bit_scales, 63), np.minimum(six_bit_minimums, 63))
    final_scales, final_minimums = six_bit_pairs(blocks["scales"])
    parts, shifts = scaled(final_scales, blocks["d"]), scaled(final_minimums, blocks["dmin"])
    return final_levels(x, levels, parts, shifts, 0, limit)


def rounded_scales(scales: Values, limit: int, n: int) -> tuple[npt.NDArray[np.float16], Levels]:
    """Return half(largest / limit) per block and the scales as multiples of largest / limit, uint8 (n, sub-blocks)."""
    by_block = scales.reshape(n, -1)
    largest = np.zeros(n, f32)
    # a loop, as upstream's: a NaN compares false and is never the largest; np.max would return it
    for column in by_block.T:
        largest = np.where(column > largest, column, largest)
    multiplier = np.where(largest > 0, f32(limit) / largest, f32(0))
    return to_half(largest / f32(limit)), low_byte(nearest_int(multiplier[:, None] * by_block))


def final_levels(x: Values, levels: Ints, scales: Values, minimums: Values, low: int, high: int) -> Levels:
    """Return level - low of each element under the rounded scales, shape (n, 256).

    Where a rounded scale is 0 the searched level stays: it no longer matters, but it is what upstream writes.
    """
    scale = scales.reshape(-1)
    rounded = np.clip(nearest_int((x + minimums.reshape(-1)) / scale), low, high) - low
    return np.where(scale != 0, rounded, levels).astype(np.uint8).T.reshape(-1, 256)


def pack_six_bit_pairs(scales: Levels, minimums: Levels) -> Levels:
    """Undo `six_bit_pairs`."""
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minimums[:, :4] | minimums[:, 4:] >> 4 << 6
    return np.concatenate([first, second, scales[:, 4:] & 15 | minimums[:, 4:] << 4], axis=1)


def pack_six_bit_scales(scales: Levels) -> Levels:
    """Undo `six_bit_scales`."""
    top = scales >> 4
    third = top[:, 0:4] | top[:, 4:8] << 2 | top[:, 8:12] << 4 | top[:, 12:16] << 6
    return np.concatenate([pack_nibbles(scales & 15), third], axis=1)


FORMATS: dict[str, BlockFormat] = {
    "Q2_K": BlockFormat(Q2_K, dequantise_q2_k, quantise_q2_k),
    "Q3_K": BlockFormat(Q3_K, dequantise_q3_k, quantise_q3_k),
    "Q4_K": BlockFormat(Q4_K, dequantise_q4_k, quantise_q4_k),
    "Q5_K": BlockFormat(Q5_K, dequantise_q5_k, quantise_q5_k),
    "Q6_K": BlockFormat(Q6_K, dequantise_q6_k, quantise_q6_k),
    "Q8_K": BlockFormat(Q8_K, dequantise_q8_k, quantise_q8_k),
}
