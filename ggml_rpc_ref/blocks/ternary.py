"""The ternary types: 256 elements of -1, 0 or 1 and one half-precision scale.

    TQ1_0  54 bytes   0 qs 48 bytes, five trits each    48 qh 4 bytes, four trits each    52 d  f16     x = t * d
    TQ2_0  66 bytes   0 qs 64 bytes, four trits of two bits each    64 d  f16                            x = t * d

TQ2_0 stores t + 1 in two bits: element e in byte e % 32 of the 32 bytes for e // 128, bits 2 * (e % 128 // 32). The
value 3 never comes from quantising and reads as 2.

TQ1_0 stores t + 1 as a digit of a fraction in base 3: with the digits a b c d e, a the first, the byte is
(81a + 27b + 9c + 3d + e) * 256 / 243, rounded up. Multiplying the byte by 3 moves digit a into the ninth and tenth bit;
multiplying it by 3**k modulo 256 first drops the k digits before. Which element each digit belongs to:

    qs byte m of 0-31     digit k   element k * 32 + m
    qs byte 32 + m        digit k   element 160 + k * 16 + m
    qh byte m             digit k   element 240 + k * 4 + m     (four digits, the fifth is 0)

Quantising: d is the largest magnitude, t the element divided by it, rounded half away from zero.

Sources: ggml-common.h (block_tq1_0, block_tq2_0), ggml-quants.c (dequantize_row_tq1_0, quantize_row_tq1_0_ref ...).
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import BlockFormat, Blocks, Levels, Values, bit_pairs, scaled

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
    shifted = packed[:, None, :] * powers
    return (shifted.astype(np.uint16) * np.uint16(3) >> 8).astype(np.uint8)


FORMATS: dict[str, BlockFormat] = {
    "TQ1_0": BlockFormat(TQ1_0, dequantise_tq1_0),
    "TQ2_0": BlockFormat(TQ2_0, dequantise_tq2_0),
}
