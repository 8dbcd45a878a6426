"""The FP4 types: E2M1 numbers under a scale that is a power of two (MXFP4) or a small float (NVFP4).

    MXFP4  17 bytes, 32 elements   0 e  E8M0                       1 qs 16 bytes    x = 2**(e - 127) * value / 2
    NVFP4  36 bytes, 64 elements   0 d  4 x UE4M3, one per 16      4 qs 32 bytes    x = d * value / 2

    qs of MXFP4  byte j             low half element j            high half element j + 16
    qs of NVFP4  byte 8s + j        low half element 16s + j      high half element 16s + 8 + j

    E2M1   seem    the value doubled is 0 1 2 3 4 6 8 12, with bit 3 the same negated; code 8 is plain 0, not -0
    E8M0   the exponent plus 127; 0 is 2**-127, and 255 is not treated as NaN but as 2**128
    UE4M3  0eeeemmm  bias 7, sub-normals below 2**-6; 0x7F reads as 0; bit 7 is ignored (0xFF reads as 480)

Both keep half of the scale, so that the doubled values stay integers.

Quantising: MXFP4's e is floor(log2(largest magnitude)) - 2, NVFP4's d is the largest magnitude / 6 rounded to UE4M3; each
element becomes the code of least error, the first of equals.

Sources: ggml-common.h (block_mxfp4, block_nvfp4, kvalues_mxfp4), ggml-impl.h (ggml_e8m0_to_fp32_half, ggml_ue4m3_to_fp32,
ggml_fp32_to_ue4m3), ggml-quants.c (quantize_row_mxfp4_ref, quantize_row_nvfp4_ref ...).
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import BlockFormat, Blocks, Values, f32, nibbles, scaled

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


FORMATS: dict[str, BlockFormat] = {
    "MXFP4": BlockFormat(MXFP4, dequantise_mxfp4),
    "NVFP4": BlockFormat(NVFP4, dequantise_nvfp4),
}
