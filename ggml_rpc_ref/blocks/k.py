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

Q8_K is only ever written as an operand of dot products; upstream can store it all the same.

Sources: ggml-common.h (block_q2_K ...), ggml-quants.c (dequantize_row_q2_K ..., get_scale_min_k4).
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import BlockFormat, Blocks, Levels, Values, bit_pairs, bit_planes, f32, nibbles, scaled

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
    scales = np.concatenate([first & 63, third & 15 | first >> 6 << 4], axis=1)
    minimums = np.concatenate([second & 63, third >> 4 | second >> 6 << 4], axis=1)
    return scales, minimums


def six_bit_scales(packed: Levels) -> Levels:
    """Unpack the scale bytes of Q3_K, shape (n, 12), into int8 0..63 of shape (n, 16)."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    top = (packed[:, None, 8:12] >> shifts & 3).reshape(-1, 16)
    return np.bitwise_or(nibbles(packed[:, :8]), top << 4).view(np.int8)


FORMATS: dict[str, BlockFormat] = {
    "Q2_K": BlockFormat(Q2_K, dequantise_q2_k),
    "Q3_K": BlockFormat(Q3_K, dequantise_q3_k),
    "Q4_K": BlockFormat(Q4_K, dequantise_q4_k),
    "Q5_K": BlockFormat(Q5_K, dequantise_q5_k),
    "Q6_K": BlockFormat(Q6_K, dequantise_q6_k),
    "Q8_K": BlockFormat(Q8_K, dequantise_q8_k),
}
