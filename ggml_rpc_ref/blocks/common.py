"""What the block families share: the row that describes a type's codec, and the exact number conversions.

Everything here is float32 arithmetic in upstream's operation order, so that results are equal bit for bit. numpy's own
casts are used only where they are defined on every platform; the rest (float to integer out of range, the bits of a NaN)
is spelled out as the x86-64 instructions do it, because that is what the genuine server runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Blocks = npt.NDArray[Any]
"""Blocks as a one-dimensional array of a structured (or, for plain types, scalar) dtype: shape (n_blocks,)."""
Levels = npt.NDArray[Any]
"""Small integers unpacked from blocks: uint8, or int8 where they are signed."""
Bytes = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

f32 = np.float32

SMALLEST_MAGNITUDE = f32(1e-15)
"""Below this largest magnitude the searching quantisers treat a sub-block as all zero (GROUP_MAX_EPS, ggml-quants.c)."""


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """How one type's blocks are laid out and converted."""

    layout: np.dtype[Any]
    """One block as a numpy dtype; its itemsize is the type's bytes per block."""
    dequantise: Callable[[Blocks], Values]
    """Blocks of shape (n,) to float32 of shape (n, elements per block)."""
    quantise: Callable[[Values], Blocks] | None = None
    """float32 of shape (n, elements per block) to blocks of shape (n,); None where no such routine exists here."""


# ---- unpacking ----


def nibbles(packed: Levels) -> Levels:
    """Split bytes of shape (..., k) into (..., 2k): all low halves, then all high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def pack_nibbles(levels: Levels) -> Levels:
    """Undo `nibbles`; bits above a high half fall off, bits above a low half are or-ed in, as upstream's C does."""
    half = levels.shape[-1] // 2
    # uint8 shifted by a Python integer stays uint8 in numpy, where C would go on in int
    packed: Levels = levels[..., :half] | levels[..., half:] << 4
    return packed


def bit_pairs(packed: Levels) -> Levels:
    """Split bytes of shape (n, 32k) into two-bit numbers (n, 128k): of each 32 bytes all bits 0-1, all bits 2-3, ..."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    n = len(packed)
    return (packed.reshape(n, -1, 1, 32) >> shifts & 3).reshape(n, packed.shape[1] * 4)


def pack_bit_pairs(levels: Levels) -> Levels:
    """Undo `bit_pairs`."""
    four = levels.reshape(len(levels), -1, 4, 32)
    packed: Levels = four[:, :, 0] | four[:, :, 1] << 2 | four[:, :, 2] << 4 | four[:, :, 3] << 6
    return packed.reshape(len(levels), levels.shape[1] // 4)


def bit_planes(packed: Levels) -> Levels:
    """Split bytes of shape (n, k) into bits (n, 8k): bit 0 of every byte, then bit 1 of every byte, ..."""
    return np.unpackbits(packed[:, None, :], axis=1, bitorder="little").reshape(len(packed), -1)


def pack_bit_planes(bits: Levels) -> Levels:
    """Undo `bit_planes`."""
    return np.packbits(bits.reshape(len(bits), 8, -1), axis=1, bitorder="little")[:, 0]


def scaled(levels: Levels, scale: npt.NDArray[Any]) -> Values:
    """Return float32(levels) * float32(scale): levels (n, ..., k), one scale for each run of k."""
    values = levels.astype(f32)
    values *= scale.astype(f32, copy=False)[..., None]
    return values


# ---- float to half ----


def to_half(values: Values) -> npt.NDArray[np.float16]:
    """Round float32 to float16, nearest even, every NaN becoming 0x7E00 with its sign.

    Source: ggml_compute_fp32_to_fp16 in ggml-impl.h.
    """
    halves = values.astype(np.float16)
    # numpy's cast keeps the top bits of a NaN's payload
    nan = np.isnan(values)
    if nan.any():
        halves[nan] = np.where(np.signbit(values[nan]), np.uint16(0xFE00), np.uint16(0x7E00)).view(np.float16)
    return halves


def made(values: Values) -> Values:
    """Return results of operations on numbers, with x86-64's NaN where there is none: ARM makes one whose sign is not set."""
    return np.where(np.isnan(values), np.copysign(f32(np.nan), f32(-1)), values)


# ---- float to integer ----


def truncate_to_int32(values: Values) -> Ints:
    """Convert as C's cast does on x86-64 (CVTTPS2DQ): towards zero, and -2**31 for NaN and whatever does not fit."""
    # false for NaN, and for -2**31 itself, which is what takes its place
    fits = np.abs(values) < f32(2**31)
    return np.where(fits, values, f32(-(2**31))).astype(np.int32)


def low_byte(values: Ints) -> Bytes:
    """Keep the low eight bits, as a C cast to uint8_t does."""
    return values.astype(np.uint8)


def nearest_int(values: Values) -> Ints:
    """Round to the nearest integer, ties to even, by adding 1.5 * 2**23 and reading the mantissa.

    Exact below 2**22; beyond that the result is whatever the mantissa bits say, and equal to upstream's.
    Source: nearest_int in ggml-quants.c.
    """
    return ((values + f32(12582912)).view(np.int32) & 0x007FFFFF) - 0x00400000


def round_half_away(values: Values) -> Values:
    """Round to the nearest integer, ties away from zero, as C's roundf and lroundf do."""
    # not floor(x + 0.5): that sum rounds, and 0.49999997 + 0.5 is 1 in float32
    whole = np.trunc(values)
    return whole + np.where(np.abs(values - whole) >= f32(0.5), np.copysign(f32(1), values), f32(0))


def inverse(values: Values) -> Values:
    """Return 1 / values, and 0 for zeros: the guard of every upstream quantiser."""
    # np.where computes both branches; `quantise` has turned off the warnings about 1 / 0
    return np.where(values != 0, f32(1) / values, f32(0))


# ---- scanning a block in order ----
#
# A quantiser's sums and extremes depend on the order in which a block's elements are taken: float addition rounds, equal
# magnitudes have signs, NaN compares false. Upstream goes from first to last. So blocks stand side by side as columns,
# shape (elements, n), and the scans below walk the rows; numpy's own reductions promise no order.


def columns(values: Values) -> Values:
    """Turn (n, elements) into contiguous (elements, n)."""
    return np.ascontiguousarray(values.T)


def largest_magnitude(x: Values) -> tuple[Values, Values]:
    """Return per column the largest magnitude and the first element that has it with its sign; 0, 0 if there is none."""
    magnitude, element = np.zeros_like(x[0]), np.zeros_like(x[0])
    for row in x:
        size = np.abs(row)
        # NaN compares false and so is never the largest; np.max would return it
        larger = size > magnitude
        magnitude, element = np.where(larger, size, magnitude), np.where(larger, row, element)
    return magnitude, element


def smallest_and_largest(x: Values, low: Values, high: Values) -> tuple[Values, Values]:
    """Return per column the least and greatest element, starting from low and high; the first of equals is kept."""
    for row in x:
        low, high = np.where(row < low, row, low), np.where(row > high, row, high)
    return low, high


def ordered_sum(terms: Values) -> Values:
    """Add up each column from first to last."""
    total: Values = np.zeros_like(terms[0])
    for row in terms:
        total += row
    return total
