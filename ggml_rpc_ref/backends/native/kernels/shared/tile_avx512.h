/* Tiles with AVX-512: sixteen rows in a register, four levels of each in a lane (vpdpbusd). */
#pragma once
#include <immintrin.h>

#include "tile_layout.h"

/* Columns from which on unpacking pays, as measured. */
#define TILES_FROM_FLOATS 8
static int tiles_from_blocks(int32_t type)
{
    (void)type;
    return 4;
}

/* What is added to levels of a type to make them unsigned. */
static int tile_offset(int32_t type)
{
    (void)type;
    return 128;
}

/* Transpose 16 x 16 words: to[i][r] = from[r][i]. */
static inline void transpose(const __m512i *from, __m512i *to)
{
    __m512i a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(from[2 * i], from[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(from[2 * i], from[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    /* b[4q + c] holds words c, c + 4, c + 8, c + 12 of rows 4q .. 4q + 3, one 128-bit lane each */
    for (int c = 0; c < 4; c++) {
        __m512i low01 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x44), high01 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xEE);
        __m512i low23 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x44), high23 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xEE);
        to[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        to[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
        to[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        to[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
}

/* n words of each of sixteen rows, which lie `stride` bytes apart, to [n][16], and an offset added to each byte; n is a multiple of 8. */
static void interleave(const uint8_t *from, int64_t stride, int64_t n, int offset, uint8_t *to)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512i in[16], out[16];
        __mmask16 mask = n - i >= 16 ? 0xFFFF : 0x00FF;
        for (int r = 0; r < 16; r++)
            in[r] = _mm512_add_epi8(_mm512_maskz_loadu_epi32(mask, from + r * stride + 4 * i), _mm512_set1_epi8((char)offset));
        transpose(in, out);
        for (int c = 0; c < (n - i >= 16 ? 16 : 8); c++)
            _mm512_storeu_si512(to + (i + c) * 64, out[c]);
    }
}

/* One group of levels with eight columns: products are summed as integers, then scaled. */
static inline __attribute__((always_inline)) void multiply_blocks(const struct tile *t, const struct columns *c, int64_t k,
                                                                  const int group, const bool has_minimum, __m512 *sum)
{
    const uint8_t *level = t->level;
    const int32_t *column = (const int32_t *)c->level;
    for (int64_t g = 0; g < k / group; g++) {
        __m512i products[TILE_COLUMNS];
        EACH products[j] = _mm512_set1_epi32(c->start[g * 8 + j]);
        _Pragma("GCC unroll 8") for (int i = 0; i < group / 4; i++, level += 64, column += 8)
        {
            __m512i w = _mm512_loadu_si512(level);
            EACH products[j] = _mm512_dpbusd_epi32(products[j], w, _mm512_set1_epi32(column[j]));
        }
        __m512 scale = _mm512_loadu_ps(t->scale + g * 16);
        const float *s = c->scale + g * group / 32 * 8;
        EACH sum[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[j]), _mm512_mul_ps(scale, _mm512_set1_ps(s[j])), sum[j]);
        if (has_minimum) {
            __m512 minimum = _mm512_loadu_ps(t->minimum + g * 16);
            EACH sum[j] = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(c->weighted[g * 8 + j]), sum[j]);
        }
    }
}

static void multiply_floats(const float *row, const float *column, int64_t k, __m512 *sum)
{
    for (int64_t i = 0; i < k; i++, row += 16, column += 8) {
        __m512 w = _mm512_loadu_ps(row);
        EACH sum[j] = _mm512_fmadd_ps(w, _mm512_set1_ps(column[j]), sum[j]);
    }
}

static void multiply(int32_t type, const struct tile *t, const struct columns *c, int64_t k, float (*to)[TILE_ROWS])
{
    __m512 sum[TILE_COLUMNS];
    EACH sum[j] = _mm512_setzero_ps();
    if (c->values)
        multiply_floats(t->values, c->values, k, sum);
    else if (block_types[type].group == 32 && block_types[type].has_minimum)
        multiply_blocks(t, c, k, 32, true, sum);
    else if (block_types[type].group == 32)
        multiply_blocks(t, c, k, 32, false, sum);
    else if (block_types[type].has_minimum)
        multiply_blocks(t, c, k, 16, true, sum);
    else
        multiply_blocks(t, c, k, 16, false, sum);
    EACH _mm512_storeu_ps(to[j], sum[j]);
}
