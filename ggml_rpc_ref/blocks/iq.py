"""The IQ types: magnitudes looked up in a grid (IQ1, IQ2, IQ3) or a list of levels (IQ4), under block scales.

All but IQ4_NL have 256 elements in 8 groups of 32. Eight successive elements (four for IQ3) share one grid index.

    IQ2_XXS  66  0 d    2 groups 8 x (4 grid bytes, u32: 4 x 7 signs, 4 scale)      x = d * (s + 1/2) / 4 * grid * sign
    IQ2_XS   74  0 d    2 qs 32 x u16 (9 grid, 7 signs)    66 scales 8              x = d * (s + 1/2) / 4 * grid * sign
    IQ2_S    82  0 d    2 qs 32    34 signs 32    66 qh 8    74 scales 8            x = d * (s + 1/2) / 4 * grid * sign
    IQ3_XXS  98  0 d    2 qs 64    66 8 x u32: 4 x 7 signs, 4 scale                 x = d * (s + 1/2) / 2 * grid * sign
    IQ3_S   110  0 d    2 qs 64    66 qh 8    74 signs 32    106 scales 4           x = d * (1 + 2s) * grid * sign
    IQ1_S    50  0 d    2 qs 32    34 qh 8 x u16                                    x = d * (1 + 2s) * (grid +- 1/8)
    IQ1_M    56  0 qs 32    32 qh 16    48 scales 4 x u16                           x = d * (1 + 2s) * (grid +- 1/8)
    IQ4_NL   18  0 d    2 qs 16, 32 elements                                        x = d * level
    IQ4_XS  136  0 d    2 scales_h u16    4 scales_l 4    8 qs 128                  x = d * (s - 32) * level

The fields, lowest bits first; g is the group (0-7), l the run of eight within it (0-3), k the run of four (0-7):

    u32 of IQ2_XXS, IQ3_XXS   signs of run l in bits 7l..7l+6, the scale in bits 28-31
    scales of IQ2_XS, IQ2_S   byte g: scale of runs 0 and 1, then of runs 2 and 3
    qh of IQ2_S               byte g, bits 2l..2l+1: grid bits 8-9 of run l
    qh of IQ3_S               byte g, bit k: grid bit 8 of run k
    scales of IQ3_S           byte g // 2: scale of even g, then of odd g
    qh of IQ1_S               word g: 4 x 3 grid bits 8-10, scale in bits 12-14, bit 15 set: minus 1/8
    qh of IQ1_M               half byte 4g + l: grid bits 8-10, bit 3 set: minus 1/8
    scales of IQ1_M           word w: 4 x 3 bits, the scales of runs 0-1 and 2-3 of groups 2w and 2w + 1;
                              bits 12-15 of the four words, word 0 lowest, are d
    scales of IQ4_XS          scales_l byte g // 2: low four bits of even g, then of odd g; scales_h bits 2g..2g+1 above
    qs of IQ4                 per 32 elements, byte j: element j, then element j + 16

A sign byte's bit j is the sign of element j of the run; seven stored bits are completed to an even number of minus signs.

Quantising IQ4, in the notation of the K types; level() is the nearest level, or the upper one of two equally near. For 32
elements, with S = sum x * x * level * x and T = sum x * x * level * level:

    IQ4_NL   q = level(x * (1 / (X / -127))), d = S / T. Magnitudes below 1e-15: d = 0, q is unspecified
    IQ4_XS   a = S / T for level(x * (1 / (X / 127))), then for level(x * ((i - 127) / X)), i = -7..7, where T > 0 and
             S² > (a * S of the best so far) * T; below 1e-15 a = 0. With A the a of largest magnitude of the block: d = -A / 32,
             s = near(a * (1 / d)) in -32..31, q = level(x * (1 / (d * s))) with d as it is before it is stored; 1 / 0 counts as 0

Sources: ggml-common.h (block_iq2_xxs ...), ggml-quants.c (dequantize_row_iq2_xxs ..., quantize_row_iq4_nl_impl).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.blocks.common import (
    SMALLEST_MAGNITUDE,
    BlockFormat,
    Blocks,
    Levels,
    Values,
    columns,
    f32,
    inverse,
    largest_magnitude,
    made,
    nearest_int,
    nibbles,
    ordered_sum,
    pack_nibbles,
    scaled,
    to_half,
)
from ggml_rpc_ref.blocks.iq_tables import (
    EVEN_SIGNS,
    IQ1_GRID,
    IQ2_S_GRID,
    IQ2_XS_GRID,
    IQ2_XXS_GRID,
    IQ3_S_GRID,
    IQ3_XXS_GRID,
    IQ4_LEVELS,
    SIGNS,
)

IQ2_XXS = np.dtype([("d", "<f2"), ("groups", [("grid", "u1", 4), ("signs", "<u4")], 8)])
IQ2_XS = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])
IQ2_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)])
IQ3_XXS = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("signs", "<u4", 8)])
IQ3_S = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)])
IQ1_S = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
IQ1_M = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "<u2", 4)])
IQ4_NL = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
IQ4_XS = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])

IQ1_DELTA = f32(0.125)
IQ4_MIDPOINTS = (IQ4_LEVELS[:-1].astype(f32) + IQ4_LEVELS[1:].astype(f32)) / f32(2)


def dequantise_iq2_xxs(blocks: Blocks) -> Values:
    """One scale per 32 elements, seven sign bits per 8."""
    groups = blocks["groups"]
    scales = (f32(0.5) + (groups["signs"] >> 28).astype(f32)) * blocks["d"].astype(f32)[:, None] * f32(0.25)
    return lattice(scales, IQ2_XXS_GRID[groups["grid"]], EVEN_SIGNS[seven_bit_fields(groups["signs"])])


def dequantise_iq2_xs(blocks: Blocks) -> Values:
    """One scale per 16 elements, seven sign bits per 8."""
    return lattice(quarter_scales(blocks), IQ2_XS_GRID[blocks["qs"] & 511], EVEN_SIGNS[blocks["qs"] >> 9])


def dequantise_iq2_s(blocks: Blocks) -> Values:
    """One scale per 16 elements, eight sign bits per 8."""
    index = blocks["qs"] | spread(blocks["qh"], 2, 4) << 8
    return lattice(quarter_scales(blocks), IQ2_S_GRID[index], SIGNS[blocks["signs"]])


def dequantise_iq3_xxs(blocks: Blocks) -> Values:
    """One scale per 32 elements, seven sign bits per 8, two grid entries of 4."""
    scales = (f32(0.5) + (blocks["signs"] >> 28).astype(f32)) * blocks["d"].astype(f32)[:, None] * f32(0.5)
    return lattice(scales, IQ3_XXS_GRID[blocks["qs"]], EVEN_SIGNS[seven_bit_fields(blocks["signs"])])


def dequantise_iq3_s(blocks: Blocks) -> Values:
    """One scale per 32 elements, eight sign bits per 8, two grid entries of 4."""
    index = blocks["qs"] | spread(blocks["qh"], 1, 8) << 8
    scales = odd_scales(blocks["d"], spread(blocks["scales"], 4, 2))
    return lattice(scales, IQ3_S_GRID[index], SIGNS[blocks["signs"]])


def dequantise_iq1_s(blocks: Blocks) -> Values:
    """One scale and one shift per 32 elements."""
    qh = blocks["qh"]
    index = blocks["qs"] | spread(qh, 3, 4) << 8
    shifts = np.where(qh & 0x8000, -IQ1_DELTA, IQ1_DELTA)
    return shifted_lattice(odd_scales(blocks["d"], qh >> 12 & 7), IQ1_GRID[index], np.repeat(shifts, 4, axis=1))


def dequantise_iq1_m(blocks: Blocks) -> Values:
    """One scale per 16 elements, one shift per 8; the half-precision scale is spread over the scale words."""
    words = blocks["scales"]
    # the top four bits of each word, word 0 lowest; no two share a bit, so that the sum joins them
    d = (words >> 12 << np.array([0, 4, 8, 12], np.uint16)).sum(axis=1, dtype=np.uint16).view(np.float16)
    runs = spread(blocks["qh"], 4, 2)
    index = blocks["qs"] | (runs & 7) << 8
    shifts = np.where(runs & 8, -IQ1_DELTA, IQ1_DELTA)
    return shifted_lattice(odd_scales(d, spread(words, 3, 4)), IQ1_GRID[index], shifts)


def dequantise_iq4_nl(blocks: Blocks) -> Values:
    """One scale for 32 levels."""
    return scaled(IQ4_LEVELS[nibbles(blocks["qs"])], blocks["d"])


def dequantise_iq4_xs(blocks: Blocks) -> Values:
    """One six-bit scale per 32 levels."""
    low, high = spread(blocks["scales_l"], 4, 2), spread(blocks["scales_h"][:, None], 2, 8)
    scales = scaled((low | high << 4).astype(np.int16) - np.int16(32), blocks["d"])
    levels = IQ4_LEVELS[nibbles(blocks["qs"].reshape(-1, 8, 16))]
    return scaled(levels, scales).reshape(-1, 256)


def spread(packed: npt.NDArray[Any], width: int, count: int) -> npt.NDArray[np.uint16]:
    """Take count fields of width bits from each number, lowest first: (n, k) to (n, k * count)."""
    shifts = np.arange(count, dtype=np.uint16) * np.uint16(width)
    fields = packed.astype(np.uint16)[:, :, None] >> shifts & np.uint16((1 << width) - 1)
    return fields.reshape(len(packed), -1)


def seven_bit_fields(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Take the four lowest seven-bit fields of each word: (n, 8) to (n, 32)."""
    return (words[:, :, None] >> np.array([0, 7, 14, 21], np.uint32) & np.uint32(127)).reshape(len(words), -1)


def quarter_scales(blocks: Blocks) -> Values:
    """Return d * (1/2 + s) / 4 for the sixteen four-bit scales of IQ2_XS and IQ2_S."""
    scales = f32(0.5) + spread(blocks["scales"], 4, 2).astype(f32)
    return scales * blocks["d"].astype(f32)[:, None] * f32(0.25)


def odd_scales(d: Blocks, scales: Blocks) -> Values:
    """Return d * (1 + 2s)."""
    return (1 + 2 * scales).astype(f32) * d.astype(f32)[:, None]


def lattice(scales: Values, magnitudes: Values, signs: Values) -> Values:
    """Return scale * magnitude * sign: scales (n, s), magnitudes (n, 64 or 32, 4 or 8), signs (n, 32, 8)."""
    n, parts = scales.shape
    values = magnitudes.reshape(n, parts, -1) * scales[:, :, None]
    values *= signs.reshape(n, parts, -1)
    return values.reshape(n, 256)


def shifted_lattice(scales: Values, grid: Values, shifts: Values) -> Values:
    """Return scale * (grid + shift): scales (n, s), grid (n, 32, 8), shifts (n, 32)."""
    n, parts = scales.shape
    values = (grid + shifts[:, :, None]).reshape(n, parts, -1)
    values *= scales[:, :, None]
    return values.reshape(n, 256)


def quantise_iq4_nl(values: Values) -> Blocks:
    """Fit one scale to the levels that the largest magnitude suggests.

    For a block that is nearly zero (below 1e-15) upstream writes d = 0 and, as qs, what its scratch array holds: the codes of
    the row's last other block, or, at the row's beginning, whatever was on the stack. Here they are code 8: +0 under d = 0.
    """
    x = columns(values)
    scales, codes = search_iq4(x, IQ4_LEVELS[0], 0)
    blocks = np.empty(len(values), IQ4_NL)
    blocks["d"] = to_half(scales)
    blocks["qs"] = pack_nibbles(codes.T)
    return blocks


def quantise_iq4_xs(values: Values) -> Blocks:
    """Search a scale per 32 elements, round the scales to six bits, then take the nearest levels under those."""
    x = columns(values.reshape(-1, 32))
    scales = search_iq4(x, -IQ4_LEVELS[0], 7)[0].reshape(-1, 8)
    d = -largest_magnitude(columns(scales))[1] / f32(32)
    six_bits = np.clip(nearest_int(inverse(d)[:, None] * scales), -32, 31)
    # upstream goes on with d as it was before rounding to half
    codes = nearest_iq4(inverse(d[:, None] * six_bits.astype(f32)).reshape(-1) * x)
    blocks = np.empty(len(values), IQ4_XS)
    blocks["d"] = to_half(d)
    stored = (six_bits + 32).astype(np.uint16)
    # two bits each, no two in the same place: the sum joins them
    blocks["scales_h"] = ((stored >> 4) << np.arange(0, 16, 2, dtype=np.uint16)).sum(axis=1, dtype=np.uint16)
    blocks["scales_l"] = (stored & 15)[:, ::2] | (stored & 15)[:, 1::2] << 4
    blocks["qs"] = pack_nibbles(codes.T).reshape(-1, 128)
    return blocks


def search_iq4(x: Values, reach: np.int8, tries: int) -> tuple[Values, Levels]:
    """Choose a scale for each column of x (quantize_row_iq4_nl_impl with weights x * x).

    Starts from the scale that maps the largest magnitude to reach and tries those that map it to -127 - tries ...
    -127 + tries; the best fit is the one with the greatest (sum of w x q)**2 / (sum of w q**2).

    Returns:
        The scales, and the codes of the first attempt.
    """
    magnitude, largest = largest_magnitude(x)
    weights = x * x
    # upstream's id = 1 / d: it rounds twice where reach / largest would round once
    codes, sum_xq, sum_qq = fit_iq4(x, weights, f32(1) / (largest / f32(reach)))
    scale = np.where(sum_qq > 0, made(sum_xq / sum_qq), f32(0))
    best = scale * sum_xq
    # quantize_row_iq4_nl_ref passes ntry = -1, whose loop is empty; int(), because -127 - 7 does not fit in int8
    for step in range(-tries, tries + 1) if tries else ():
        _, sum_xq, sum_qq = fit_iq4(x, weights, f32(step + int(IQ4_LEVELS[0])) / largest)
        better = (sum_qq > 0) & (sum_xq * sum_xq > best * sum_qq)
        scale = np.where(better, made(sum_xq / sum_qq), scale)
        best = np.where(better, scale * sum_xq, best)
    zero = magnitude < SMALLEST_MAGNITUDE
    return np.where(zero, f32(0), scale), np.where(zero, np.uint8(8), codes)


def fit_iq4(x: Values, weights: Values, inverse_scale: Values) -> tuple[Levels, Values, Values]:
    """Return the codes for a scale, the sum of weight x level and the sum of weight level**2."""
    codes = nearest_iq4(inverse_scale * x)
    q = IQ4_LEVELS[codes].astype(f32)
    # (w * q) * x, as upstream has it here; in `k_search.fit` x comes first
    return codes, ordered_sum(weights * q * x), ordered_sum(weights * q * q)


def nearest_iq4(values: Values) -> Levels:
    """Return the code of the nearest IQ4 level, the upper one half-way between two; 15 for NaN (best_index_int8)."""
    codes = np.zeros(values.shape, np.uint8)
    for midpoint in IQ4_MIDPOINTS:
        # not `values >= midpoint`: a NaN, which compares false, would become 0 and not 15
        codes += ~(values < midpoint)
    return codes


FORMATS: dict[str, BlockFormat] = {
    "IQ2_XXS": BlockFormat(IQ2_XXS, dequantise_iq2_xxs),
    "IQ2_XS": BlockFormat(IQ2_XS, dequantise_iq2_xs),
    "IQ2_S": BlockFormat(IQ2_S, dequantise_iq2_s),
    "IQ3_XXS": BlockFormat(IQ3_XXS, dequantise_iq3_xxs),
    "IQ3_S": BlockFormat(IQ3_S, dequantise_iq3_s),
    "IQ1_S": BlockFormat(IQ1_S, dequantise_iq1_s),
    "IQ1_M": BlockFormat(IQ1_M, dequantise_iq1_m),
    "IQ4_NL": BlockFormat(IQ4_NL, dequantise_iq4_nl, quantise_iq4_nl),
    "IQ4_XS": BlockFormat(IQ4_XS, dequantise_iq4_xs, quantise_iq4_xs),
}
