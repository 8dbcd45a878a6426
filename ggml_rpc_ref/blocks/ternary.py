"""The ternary types: 256 elements of -1, 0 or 1 and one half-precision scale.

    TQ1_0  54 bytes   0 qs 48 bytes, five trits each    48 qh 4 bytes, four trits each    52 d  f16     x = t * d
    TQ2_0  66 bytes   0 qs 64 bytes, four trits of two bits each    64 d  f16                            x = t * d

TQ2_0 stores t + 1 in two bits: element e in byte e % 32 of the 32 bytes for e // 128, bits 2 * (e % 128 // 32). Quantising
never produces the value 3; it reads as 2.

TQ1_0 stores t + 1 as a digit of a fraction in base 3: with the digits a b c d e, a the first, the byte is
(81a + 27b + 9c + 3d + e) * 256 / 243, rounded up. Multiplying the byte by 3 moves digit a into the ninth and tenth bit;
multiplying it by 3**k modulo 256 first drops the k digits before. Which element each digit belongs to:

    qs byte m of 0-31     digit k   element k * 32 + m
    qs byte 32 + m        digit k   element 160 + k * 16 + m
    qh byte m             digit k   element 240 + k * 4 + m     (four digits, the fifth is 0)

Quantising: d is the largest magnitude, t the element times 1 / d (0 where d is 0), rounded half away from zero.

Sources: ggml-common.h (block_tq1_0, block_tq2_0), ggml-quants.c (dequantize_row_tq1_0, quantize_row_tq1_0_ref ...).
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import (
    BlockFormat,
    Blocks,
    Levels,
    Values,
    bit_pairs,
    columns,
    f32,
    inverse,
    pack_bit_pairs,
    round_half_away,
    scaled,
    to_half,
)

TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])


def dequantise_tq1_0(blocks: Blocks) -> Values:
    """x = t * d."""
    qs, n = blocks["qs"], len(blocks)
    digits = [base_3_digits(qs[:, :32], 5), base_3_digits(qs[:, 32:], 5), base_3_digits(blocks["qh"], 4)]
    trits = np.concatenate([d.reshape(n, -1) for d in digits], axis=1)
    return scaled(trits.view(np.int8) - np.int8(1), blocks["d"])


def dequantise_tq2_0(blocks: Blocks) -> Values:
    """x = t * d."""
    return scaled(bit_pairs(blocks["qs"]).view(np.int8) - np.int8(1), blocks["d"])


def base_3_digits(packed: Levels, count: int) -> Levels:
    """Return the first count digits of each byte: (n, k) to (n, count, k)."""
    powers = np.array([1, 3, 9, 27, 81], np.uint8)[:count, None]
    # in uint8, which drops the digits before by wrapping modulo 256
    shifted = packed[:, None, :] * powers
    return (shifted.astype(np.uint16) * np.uint16(3) >> 8).astype(np.uint8)


def quantise_tq1_0(values: Values) -> Blocks:
    """t = x / d, rounded; five (or four) digits t + 1 to a byte."""
    digits, d = rounded_trits(values)
    blocks = np.empty(len(values), TQ1_0)
    blocks["qs"][:, :32] = pack_base_3(digits[:160].reshape(5, 32, -1))
    blocks["qs"][:, 32:] = pack_base_3(digits[160:240].reshape(5, 16, -1))
    # four digits are read as the first of five, so that both kinds of byte unpack alike
    fifth = np.zeros((1, 4, len(values)), np.uint8)
    blocks["qh"] = pack_base_3(np.concatenate([digits[240:].reshape(4, 4, -1), fifth]))
    blocks["d"] = to_half(d)
    return blocks


def quantise_tq2_0(values: Values) -> Blocks:
    """t = x / d, rounded; t + 1 in two bits."""
    digits, d = rounded_trits(values)
    blocks = np.empty(len(values), TQ2_0)
    blocks["qs"] = pack_bit_pairs(digits.T & 3)
    blocks["d"] = to_half(d)
    return blocks


def rounded_trits(values: Values) -> tuple[Levels, Values]:
    """Return the digits t + 1 as uint8 columns, and d = the largest magnitude."""
    x = columns(values)
    d = np.zeros_like(x[0])
    for row in np.abs(x):
        d = np.where(d > row, d, row)  # a NaN is taken, and dropped again by the next element, as upstream's MAX does
    trits = round_half_away(x * inverse(d))
    # lroundf gives LONG_MIN where the result does not fit, and of that the low byte, 0, is taken
    fits = np.abs(trits) < f32(2**63)
    return np.where(fits, trits, f32(0)).astype(np.int64).astype(np.uint8) + np.uint8(1), d


def pack_base_3(digits: Levels) -> Levels:
    """Undo `base_3_digits`: digits (5, k, n), most significant first, to bytes (n, k)."""
    number: Levels = np.zeros_like(digits[0])
    for digit in digits:
        number = number * np.uint8(3) + digit
    # up, because unpacking rounds down: a byte below its fraction would lose the last digit
    rounded_up = (number.astype(np.uint16) * 256 + 242) // 243
    return rounded_up.astype(np.uint8).T


FORMATS: dict[str, BlockFormat] = {
    "TQ1_0": BlockFormat(TQ1_0, dequantise_tq1_0, quantise_tq1_0),
    "TQ2_0": BlockFormat(TQ2_0, dequantise_tq2_0, quantise_tq2_0),
}
