/* One element of a block of each type; SPEC.md says where each bit lies, native/kernels/shared/blocks.c unpacks whole blocks. */
#pragma once
#include "kernel.cuh"

#include "grids.h"

/* Byte by byte: most blocks have a size that keeps no alignment beyond two bytes. */
DEVICE uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
DEVICE uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }
DEVICE float half_at(const uint8_t *p) { return from_half((uint16_t)u16(p)); }

/* Element i of n bytes that hold 2n: all low halves, then all high ones. */
DEVICE int nibble(const uint8_t *packed, int i, int n) { return i < n ? packed[i] & 15 : packed[i - n] >> 4; }

/* Element i of 32-byte runs that hold 128 each: all bits 0-1, all bits 2-3, and so on. */
DEVICE int bit_pair(const uint8_t *packed, int i) { return packed[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3; }

/* ----------------------------------------------------------------------------------------------------- 32 elements */

DEVICE float of_q4_0(const uint8_t *b, int i) { return half_at(b) * (nibble(b + 2, i, 16) - 8); }
DEVICE float of_q4_1(const uint8_t *b, int i) { return half_at(b) * nibble(b + 4, i, 16) + half_at(b + 2); }

DEVICE int five_bits(const uint8_t *high, const uint8_t *low, int i)
{
    return nibble(low, i, 16) | (int)(u32(high) >> i & 1) << 4;
}

DEVICE float of_q5_0(const uint8_t *b, int i) { return half_at(b) * (five_bits(b + 2, b + 6, i) - 16); }
DEVICE float of_q5_1(const uint8_t *b, int i) { return half_at(b) * five_bits(b + 4, b + 8, i) + half_at(b + 2); }
DEVICE float of_q8_0(const uint8_t *b, int i) { return half_at(b) * (int8_t)b[2 + i]; }
DEVICE float of_q8_1(const uint8_t *b, int i) { return half_at(b) * (int8_t)b[4 + i]; }

TABLE int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* Twice the value of each four-bit code. */
TABLE int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

DEVICE float of_iq4_nl(const uint8_t *b, int i) { return half_at(b) * iq4_levels[nibble(b + 2, i, 16)]; }

/* Half of 2^(e - 127); the first two are below the smallest normal number. */
DEVICE float half_e8m0(uint8_t e) { return e < 2 ? as_float(0x00200000u << e) : as_float((uint32_t)(e - 1) << 23); }

DEVICE float of_mxfp4(const uint8_t *b, int i) { return half_e8m0(b[0]) * e2m1_doubled[nibble(b + 1, i, 16)]; }

/* Half of a UE4M3 number: 0eeeemmm, bias 7; bit 7 is ignored, 0x7F reads as 0. */
DEVICE float half_ue4m3(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (code == 0x7F)
        return 0;
    return exponent ? ldexpf(1 + mantissa / 8.0f, exponent - 8) : ldexpf((float)mantissa, -10);
}

DEVICE float of_nvfp4(const uint8_t *b, int i)
{
    int part = i / 16;
    return half_ue4m3(b[part]) * e2m1_doubled[nibble(b + 4 + 8 * part, i % 16, 8)];
}

DEVICE float of_q1_0(const uint8_t *b, int i) { return half_at(b) * ((b[2 + i / 8] >> i % 8 & 1) * 2 - 1); }
DEVICE float of_q2_0(const uint8_t *b, int i) { return half_at(b) * ((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1); }

/* ------------------------------------------------------------------------------------------------------- the K types */

DEVICE float of_q2_k(const uint8_t *b, int i)
{
    int scale = b[i / 16];
    return (scale & 15) * half_at(b + 80) * bit_pair(b + 16, i) - (scale >> 4) * half_at(b + 82);
}

DEVICE float of_q3_k(const uint8_t *b, int i)
{
    const uint8_t *packed = b + 96;
    int part = i / 16, low = part < 8 ? packed[part] & 15 : packed[part - 8] >> 4, high = packed[8 + part % 4] >> 2 * (part / 4) & 3;
    int level = (bit_pair(b + 32, i) | (b[i % 32] >> i / 32 & 1) << 2) - 4;
    return ((low | high << 4) - 32) * half_at(b + 108) * level;
}

/* Scale and minimum of a group of 32, of the twelve bytes of Q4_K and Q5_K. */
DEVICE void six_bits(const uint8_t *packed, int group, int *scale, int *minimum)
{
    int i = group % 4;
    if (group < 4) {
        *scale = packed[i] & 63;
        *minimum = packed[4 + i] & 63;
    } else {
        *scale = (packed[8 + i] & 15) | packed[i] >> 6 << 4;
        *minimum = packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4;
    }
}

DEVICE float of_q4_k(const uint8_t *b, int i)
{
    int scale, minimum;
    six_bits(b + 4, i / 32, &scale, &minimum);
    return scale * half_at(b) * nibble(b + 16 + i / 64 * 32, i % 64, 32) - minimum * half_at(b + 2);
}

DEVICE float of_q5_k(const uint8_t *b, int i)
{
    int scale, minimum, level = nibble(b + 48 + i / 64 * 32, i % 64, 32) | (b[16 + i % 32] >> i / 32 & 1) << 4;
    six_bits(b + 4, i / 32, &scale, &minimum);
    return scale * half_at(b) * level - minimum * half_at(b + 2);
}

DEVICE float of_q6_k(const uint8_t *b, int i)
{
    int level = (nibble(b + i / 128 * 64, i % 128, 64) | bit_pair(b + 128, i) << 4) - 32;
    return (int8_t)b[192 + i / 16] * half_at(b + 208) * level;
}

DEVICE float of_q8_k(const uint8_t *b, int i) { return as_float(u32(b)) * (int8_t)b[4 + i]; }

/* ------------------------------------------------------------------------------------------------- the ternary types */

DEVICE float of_tq2_0(const uint8_t *b, int i) { return half_at(b + 64) * (bit_pair(b, i) - 1); }

/* Digit k of a byte that is a fraction in base 3. */
DEVICE int digit(uint8_t byte, int k)
{
    int power = 1;
    for (int i = 0; i < k; i++)
        power *= 3;
    return ((uint8_t)(byte * power) * 3 >> 8) - 1;
}

DEVICE float of_tq1_0(const uint8_t *b, int i)
{
    int level;
    if (i < 160)
        level = digit(b[i % 32], i / 32);
    else if (i < 240)
        level = digit(b[32 + i % 16], (i - 160) / 16);
    else
        level = digit(b[48 + i % 4], (i - 240) / 4);
    return half_at(b + 52) * level;
}

/* ------------------------------------------------------------------------------------------------------ the IQ types */

/* Seven stored signs, and the eighth that makes the number of minus signs even. */
DEVICE uint32_t even_signs(uint32_t seven) { return seven | (__popc(seven) & 1u) << 7; }

DEVICE int with_sign(int magnitude, uint32_t minus) { return minus & 1 ? -magnitude : magnitude; }

DEVICE float of_iq2_xxs(const uint8_t *b, int i)
{
    const uint8_t *grid = b + 2 + i / 32 * 8;
    uint32_t signs = u32(grid + 4);
    int run = i / 8 % 4;
    int level = with_sign(iq2_xxs_grid[grid[run]][i % 8], even_signs(signs >> 7 * run & 127) >> i % 8);
    return (0.5f + (float)(signs >> 28)) * half_at(b) * 0.25f * level;
}

DEVICE float quarter_scale(const uint8_t *scales, int part) { return 0.5f + (float)(scales[part / 2] >> 4 * (part % 2) & 15); }

DEVICE float of_iq2_xs(const uint8_t *b, int i)
{
    uint32_t q = u16(b + 2 + i / 8 * 2);
    return quarter_scale(b + 66, i / 16) * half_at(b) * 0.25f * with_sign(iq2_xs_grid[q & 511][i % 8], even_signs(q >> 9) >> i % 8);
}

DEVICE float of_iq2_s(const uint8_t *b, int i)
{
    int run = i / 8, index = b[2 + run] | (b[66 + run / 4] >> 2 * (run % 4) & 3) << 8;
    return quarter_scale(b + 74, i / 16) * half_at(b) * 0.25f * with_sign(iq2_s_grid[index][i % 8], b[34 + run] >> i % 8);
}

DEVICE float of_iq3_xxs(const uint8_t *b, int i)
{
    uint32_t signs = u32(b + 66 + i / 32 * 4);
    uint32_t eight = even_signs(signs >> 7 * (i / 8 % 4) & 127);
    return (0.5f + (float)(signs >> 28)) * half_at(b) * 0.5f * with_sign(iq3_xxs_grid[b[2 + i / 4]][i % 4], eight >> i % 8);
}

DEVICE float of_iq3_s(const uint8_t *b, int i)
{
    int g = i / 32, k = i / 4 % 8, index = b[2 + 8 * g + k] | (b[66 + g] >> k & 1) << 8;
    float scale = (float)(1 + 2 * (b[106 + g / 2] >> 4 * (g % 2) & 15));
    return scale * half_at(b) * with_sign(iq3_s_grid[index][i % 4], b[74 + i / 8] >> i % 8);
}

/* Eight times grid +- 1/8, under an eighth of the scale: both exact. */
DEVICE int shifted(int8_t entry, uint32_t minus) { return 8 * entry + (minus ? -1 : 1); }

DEVICE float of_iq1_s(const uint8_t *b, int i)
{
    int g = i / 32, run = i / 8 % 4;
    uint32_t qh = u16(b + 34 + 2 * g);
    int level = shifted(iq1_grid[b[2 + 4 * g + run] | (qh >> 3 * run & 7) << 8][i % 8], qh >> 15);
    return (float)(1 + 2 * (qh >> 12 & 7)) * half_at(b) * 0.125f * level;
}

DEVICE float of_iq1_m(const uint8_t *b, int i)
{
    uint32_t bits = 0;
    for (int w = 0; w < 4; w++)
        bits |= u16(b + 48 + 2 * w) >> 12 << 4 * w;
    int run = i / 8, part = i / 16;
    uint32_t qh = b[32 + run / 2] >> 4 * (run % 2) & 15;
    int level = shifted(iq1_grid[b[run] | (qh & 7) << 8][i % 8], qh >> 3);
    return (float)(1 + 2 * (u16(b + 48 + 2 * (part / 4)) >> 3 * (part % 4) & 7)) * from_half((uint16_t)bits) * 0.125f * level;
}

DEVICE float of_iq4_xs(const uint8_t *b, int i)
{
    int g = i / 32, scale = (b[4 + g / 2] >> 4 * (g % 2) & 15) | (u16(b + 2) >> 2 * g & 3) << 4;
    return (float)(scale - 32) * half_at(b) * iq4_levels[nibble(b + 8 + 16 * g, i % 32, 16)];
}

/* ---------------------------------------------------------------------------------------------------------- any type */

/* Element i of a block of a type. */
static __device__ __noinline__ float of_block(int32_t type, const uint8_t *b, int i)
{
    switch (type) {
    case GGML_TYPE_Q4_0: return of_q4_0(b, i);
    case GGML_TYPE_Q4_1: return of_q4_1(b, i);
    case GGML_TYPE_Q5_0: return of_q5_0(b, i);
    case GGML_TYPE_Q5_1: return of_q5_1(b, i);
    case GGML_TYPE_Q8_0: return of_q8_0(b, i);
    case GGML_TYPE_Q8_1: return of_q8_1(b, i);
    case GGML_TYPE_IQ4_NL: return of_iq4_nl(b, i);
    case GGML_TYPE_MXFP4: return of_mxfp4(b, i);
    case GGML_TYPE_NVFP4: return of_nvfp4(b, i);
    case GGML_TYPE_Q1_0: return of_q1_0(b, i);
    case GGML_TYPE_Q2_0: return of_q2_0(b, i);
    case GGML_TYPE_Q2_K: return of_q2_k(b, i);
    case GGML_TYPE_Q3_K: return of_q3_k(b, i);
    case GGML_TYPE_Q4_K: return of_q4_k(b, i);
    case GGML_TYPE_Q5_K: return of_q5_k(b, i);
    case GGML_TYPE_Q6_K: return of_q6_k(b, i);
    case GGML_TYPE_Q8_K: return of_q8_k(b, i);
    case GGML_TYPE_TQ1_0: return of_tq1_0(b, i);
    case GGML_TYPE_TQ2_0: return of_tq2_0(b, i);
    case GGML_TYPE_IQ2_XXS: return of_iq2_xxs(b, i);
    case GGML_TYPE_IQ2_XS: return of_iq2_xs(b, i);
    case GGML_TYPE_IQ2_S: return of_iq2_s(b, i);
    case GGML_TYPE_IQ3_XXS: return of_iq3_xxs(b, i);
    case GGML_TYPE_IQ3_S: return of_iq3_s(b, i);
    case GGML_TYPE_IQ1_S: return of_iq1_s(b, i);
    case GGML_TYPE_IQ1_M: return of_iq1_m(b, i);
    default: return of_iq4_xs(b, i);
    }
}

/* Element i of a row without gaps, of any type. */
DEVICE float element(int32_t type, const uint8_t *row, int64_t i)
{
    int block = type_block[type];
    if (block == 1)
        return load(type, row + i * type_size[type]);
    return of_block(type, row + i / block * type_size[type], (int)(i % block));
}
