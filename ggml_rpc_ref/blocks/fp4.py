"""The FP4 types: E2M1 numbers under a scale that is a power of two (MXFP4) or a small float (NVFP4).

    MXFP4  17 bytes, 32 elements   0 e  E8M0                       1 qs 16 bytes    x = 2**(e - 127) * value / 2
    NVFP4  36 bytes, 64 elements   0 d  4 x UE4M3, one per 16      4 qs 32 bytes    x = d * value / 2

    qs of MXFP4  byte j             low half element j            high half element j + 16
    qs of NVFP4  byte 8s + j        low half element 16s + j      high half element 16s + 8 + j

    E2M1   seem    the value doubled is 0 1 2 3 4 6 8 12, with bit 3 the same negated; code 8 is plain 0, not -0
    E8M0   the exponent plus 127; 0 is 2**-127, and 255 is not treated as NaN but as 2**128
    UE4M3  0eeeemmm  bias 7, sub-normals below 2**-6; 0x7F reads as 0; bit 7 is ignored (0xFF reads as 480)

Both keep half of the scale, so that the doubled values stay integers.

Quantising: MXFP4's exponent is floor(log2(largest magnitude)) - 2, e = 0 where all are 0. NVFP4's d is the largest magnitude / 6
rounded to UE4M3, halves up: below 2**-6 to multiples of 2**-9, at most seven of them, and to 0x7E (448) from 248 on. Each element
becomes the code of least error, the first of equals.

Sources: ggml-common.h (block_mxfp4, block_nvfp4, kvalues_mxfp4), ggml-impl.h (ggml_e8m0_to_fp32_half, ggml_ue4m3_to_fp32,
ggml_fp32_to_ue4m3), ggml-quants.c (quantize_row_mxfp4_ref, quantize_row_nvfp4_ref ...).
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
    largest_magnitude,
    low_byte,
    nibbles,
    pack_nibbles,
    scaled,
    truncate_to_int32,
)

MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])
NVFP4 = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])

E2M1_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)
"""Twice the value of each four-bit code."""


def _half_e8m0() -> Values:
    """2**(e - 128) for e = 0..255: exact powers, the first two sub-normal."""
    return np.ldexp(f32(1), np.arange(256) - 128).astype(f32)


def _half_ue4m3() -> Values:
    """Half of each UE4M3 number, bit 7 ignored, 0x7F alone being 0."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 8)
    values = np.where(exponent == 0, np.ldexp(mantissa.astype(np.float64), -10), normal)
    # the format's NaN, which ggml_ue4m3_to_fp32 reads as 0
    values[0x7F] = 0
    return values.astype(f32)


HALF_E8M0 = _half_e8m0()
HALF_UE4M3 = _half_ue4m3()


def dequantise_mxfp4(blocks: Blocks) -> Values:
    """x = value * scale."""
    return scaled(E2M1_DOUBLED[nibbles(blocks["qs"])], HALF_E8M0[blocks["e"]])


def dequantise_nvfp4(blocks: Blocks) -> Values:
    """x = value * scale, in four runs of 16."""
    codes = nibbles(blocks["qs"].reshape(-1, 4, 8))
    return scaled(E2M1_DOUBLED[codes], HALF_UE4M3[blocks["d"]]).reshape(-1, 64)


def quantise_mxfp4(values: Values) -> Blocks:
    """e = floor(log2(largest magnitude)) + 125, the code of least error for each element."""
    x = columns(values)
    largest, _ = largest_magnitude(x)
    # log2f rounds to float32: a magnitude a few bits below a power of two can reach its logarithm
    logarithm = np.log2(largest.astype(np.float64)).astype(f32)
    exponent = low_byte(truncate_to_int32(np.floor(logarithm) - f32(2) + f32(127)))
    blocks = np.empty(len(values), MXFP4)
    blocks["e"] = np.where(largest > 0, exponent, 0)
    blocks["qs"] = pack_nibbles(nearest_codes(x, HALF_E8M0[blocks["e"]]).T)
    return blocks


def quantise_nvfp4(values: Values) -> Blocks:
    """d = largest magnitude / 6 as UE4M3 for each run of 16, the code of least error for each element."""
    x = columns(values.reshape(-1, 16))
    scales = to_ue4m3(largest_magnitude(x)[0] / f32(6))
    codes = nearest_codes(x, HALF_UE4M3[scales]).T
    blocks = np.empty(len(values), NVFP4)
    blocks["d"] = scales.reshape(-1, 4)
    blocks["qs"] = pack_nibbles(codes).reshape(-1, 32)
    return blocks


def nearest_codes(x: Values, scale: Values) -> Levels:
    """Return the code whose value times scale is nearest to each element; the first of equals, 0 for NaN."""
    codes = np.zeros(x.shape, np.uint8)
    least = np.abs(E2M1_DOUBLED[0] * scale - x)
    for code in range(1, 16):
        error = np.abs(E2M1_DOUBLED[code] * scale - x)
        better = error < least
        codes[better] = code
        least = np.where(better, error, least)
    return codes


def to_ue4m3(values: Values) -> Levels:
    """Round positive floats to UE4M3, half up; 0 for what is not positive.

    From 2**-6 on, the float's exponent and top three mantissa bits are the code once 120 exponents are taken off; rounding
    up by the next bit carries into the exponent by itself. Upstream turns all that reaches the last exponent (256 and
    more, or 248 and more before rounding) into the largest number, 0x7E or 448.
    """
    x = np.where(values > 0, np.minimum(values, f32(448)), f32(0))
    bits = x.view(np.int32)
    normal = (bits >> 20) - (120 << 3) + (bits >> 19 & 1)
    normal = np.where(normal < 0x78, normal, 0x7E)
    subnormal = np.minimum(truncate_to_int32(x * f32(512) + f32(0.5)), 7)
    # an exponent of 120 is 2**-7, below the smallest normal number, 2**-6
    return np.where(bits >> 23 > 120, normal, subnormal).astype(np.uint8)


FORMATS: dict[str, BlockFormat] = {
    "MXFP4": BlockFormat(MXFP4, dequantise_mxfp4, quantise_mxfp4),
    "NVFP4": BlockFormat(NVFP4, dequantise_nvfp4, quantise_nvfp4),
}
