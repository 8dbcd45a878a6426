"""The plain types: one element per block, its bytes little-endian.

    F32   IEEE binary32                       F64   IEEE binary64
    F16   seeeee mmmmmmmmmm                   BF16  seeeeeeee mmmmmmm, the upper half of a binary32
    I8 I16 I32 I64   two's complement

To float32: F16, BF16 and the small integers exactly, F64, I32 and I64 rounded to nearest even. F16's signalling NaNs come
out quiet (both upstream's routine and VCVTPH2PS do that), BF16's bits come out unchanged.

From float32: F16 and BF16 round to nearest even, sub-normals and infinities included. The integers truncate towards zero.
Upstream converts float32 to F32, F16, BF16 and I32 only; I8, I16, I64 and F64 are the same C cast.

A NaN becomes 0x7E00 with its sign in F16, as in upstream's scalar routine, which CPY and DUP use. Its SET_ROWS on x86-64
converts whole vectors with VCVTPS2PH instead, which keeps the top payload bits: there the NaN's payload depends on the
element's place in the row, and only the fact that it is a NaN with that sign is certain.

Sources: ggml-impl.h (ggml_compute_fp16_to_fp32, ggml_compute_fp32_to_bf16), ggml-cpu/ggml-cpu.c (ggml_cpu_fp32_to_fp16,
ggml_cpu_fp32_to_i32), ggml-cpu/ops.cpp (dup) of the 3.6.1 release.
"""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.blocks.common import BlockFormat, Blocks, Values, f32, to_half, truncate_to_int32


def dequantise_cast(blocks: Blocks) -> Values:
    """Convert numbers that numpy knows, by its own cast: exact, or rounded to nearest even."""
    return blocks.astype(f32)[:, None]


def dequantise_f16(blocks: Blocks) -> Values:
    """Convert halves; a NaN keeps its sign and payload and becomes quiet."""
    values = blocks.astype(f32)
    nan = np.isnan(values)
    if nan.any():
        # numpy's cast leaves a signalling NaN as it is on some machines and not on others
        values.view(np.uint32)[nan] |= np.uint32(0x00400000)
    return values[:, None]


def dequantise_bf16(blocks: Blocks) -> Values:
    """Put the sixteen bits into the upper half of a float32."""
    return (blocks.astype(np.uint32) << np.uint32(16)).view(f32)[:, None]


def quantise_f32(values: Values) -> Blocks:
    """Copy."""
    return values[:, 0].astype("<f4")


def quantise_f16(values: Values) -> Blocks:
    """Round to half, nearest even; a NaN becomes 0x7E00 with its sign."""
    return to_half(values[:, 0]).astype("<f2", copy=False)


def quantise_bf16(values: Values) -> Blocks:
    """Round to the upper sixteen bits, nearest even; a NaN is cut and bit 6 set, so that it stays one."""
    bits = np.ascontiguousarray(values[:, 0]).view(np.uint32)
    # just under half of bit 16, and one more where bit 16 is set: ties go to even. Only a NaN's bits can wrap, which are replaced
    rounded = bits + (np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values[:, 0]), bits >> 16 | 64, rounded).astype("<u2")


def quantise_f64(values: Values) -> Blocks:
    """Widen."""
    return values[:, 0].astype("<f8")


def quantise_i8(values: Values) -> Blocks:
    """Truncate; what does not fit keeps its low bits."""
    return truncate_to_int32(values[:, 0]).astype("i1")


def quantise_i16(values: Values) -> Blocks:
    """Truncate; what does not fit keeps its low bits."""
    return truncate_to_int32(values[:, 0]).astype("<i2")


def quantise_i32(values: Values) -> Blocks:
    """Truncate; NaN and what does not fit become -2**31."""
    return truncate_to_int32(values[:, 0]).astype("<i4", copy=False)


def quantise_i64(values: Values) -> Blocks:
    """Truncate; NaN and what does not fit become -2**63."""
    # numpy leaves open what a cast out of range gives; x86-64 gives -2**63
    fits = np.abs(values[:, 0]) < f32(2**63)
    return np.where(fits, values[:, 0], f32(-(2**63))).astype("<i8")


C_CASTS = frozenset({"I8", "I16", "I64", "F64"})
"""Types that upstream has no conversion from float32 to; here it is C's cast."""

FORMATS: dict[str, BlockFormat] = {
    "F32": BlockFormat(np.dtype("<f4"), dequantise_cast, quantise_f32),
    "F16": BlockFormat(np.dtype("<f2"), dequantise_f16, quantise_f16),
    "BF16": BlockFormat(np.dtype("<u2"), dequantise_bf16, quantise_bf16),
    "F64": BlockFormat(np.dtype("<f8"), dequantise_cast, quantise_f64),
    "I8": BlockFormat(np.dtype("i1"), dequantise_cast, quantise_i8),
    "I16": BlockFormat(np.dtype("<i2"), dequantise_cast, quantise_i16),
    "I32": BlockFormat(np.dtype("<i4"), dequantise_cast, quantise_i32),
    "I64": BlockFormat(np.dtype("<i8"), dequantise_cast, quantise_i64),
}
