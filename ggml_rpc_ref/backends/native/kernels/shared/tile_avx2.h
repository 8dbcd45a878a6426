/* Tiles with AVX2: eight rows in a register, four levels of each in a lane, so a tile is two halves.

   vpmaddubsw adds two products of an unsigned and a signed byte in sixteen bits. Where a type's levels are small, several such sums
   fit sixteen bits as well (`sums_in_16_bits`), and are widened at once: for Q4_0 that halves the instructions. Levels that take
   all eight bits stay signed; their signs are given to the columns. */
#pragma once
#include <immintrin.h>

#include "tile_layout.h"

/* Columns from which on unpacking pays, as measured. */
#define TILES_FROM_FLOATS 8

#define SIGNED 0 /* instead of a number of sums: the levels have no offset */

static int range_of(int32_t type) { return block_types[type].highest - block_types[type].lowest; }

/* How many sums of two products can be added in sixteen bits: a level times an activation is at most range * 128. */
static int sums_in_16_bits(int32_t type)
{
    int fit = INT16_MAX / (2 * 128 * range_of(type));
    return fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : fit >= 1 ? 1 : SIGNED;
}

/* What is added to levels of a type to make them unsigned. */
static int tile_offset(int32_t type) { return sums_in_16_bits(type) == SIGNED ? 0 : -block_types[type].lowest; }

/* Signed levels take as long in a tile as one by one: only then it pays that eight columns are unpacked for at once. */
static int tiles_from_blocks(int32_t type) { return sums_in_16_bits(type) == SIGNED ? 16 : 8; }

/* Transpose 8 x 8 words: to[i][r] = from[r][i]. */
static inline void transpose(const __m256i *from, __m256i *to)
{
    __m256i a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi32(from[2 * i], from[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(from[2 * i], from[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    /* b[4q + c] holds words c and c + 4 of rows 4q .. 4q + 3, one 128-bit lane each */
    for (int c = 0; c < 4; c++) {
        to[c] = _mm256_permute2x128_si256(b[c], b[4 + c], 0x20);
        to[4 + c] = _mm256_permute2x128_si256(b[c], b[4 + c], 0x31);
    }
}

/* n words of each of sixteen rows, which lie `stride` bytes apart, to [n][16], an offset added to each byte; n is a multiple of 8. */
static void interleave(const uint8_t *from, int64_t stride, int64_t n, int offset, uint8_t *to)
{
    for (int64_t i = 0; i < n; i += 8)
        for (int half = 0; half < 2; half++) {
            __m256i in[8], out[8];
            for (int r = 0; r < 8; r++) {
                const uint8_t *row = from + (8 * half + r) * stride + 4 * i;
                in[r] = _mm256_add_epi8(_mm256_loadu_si256((const void *)row), _mm256_set1_epi8((char)offset));
            }
            transpose(in, out);
            for (int c = 0; c < 8; c++)
                _mm256_storeu_si256((void *)(to + (i + c) * 64 + 32 * half), out[c]);
        }
}

/* The sums of 4 n levels of eight rows, of which `level` is the first word, with eight columns, added to `sum`. */
static inline __attribute__((always_inline)) void add_products(const uint8_t *level, const int32_t *column, const int n,
                                                               const bool is_signed, __m256i *sum)
{
    __m256i narrow[TILE_COLUMNS];
    _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)
    {
        __m256i w = _mm256_loadu_si256((const void *)(level + 64 * i)), size = is_signed ? _mm256_abs_epi8(w) : w;
        EACH
        {
            __m256i x = _mm256_set1_epi32(column[8 * i + j]);
            __m256i pairs = _mm256_maddubs_epi16(size, is_signed ? _mm256_sign_epi8(x, w) : x);
            narrow[j] = i ? _mm256_add_epi16(narrow[j], pairs) : pairs;
        }
    }
    EACH sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(narrow[j], _mm256_set1_epi16(1)));
}

/* One group of levels of eight rows, from row `half` on, with eight columns: products are summed as integers, then scaled. */
static inline __attribute__((always_inline)) void multiply_blocks(const struct tile *t, const struct columns *c, int64_t k,
                                                                  int half, const int group, const int sums, __m256 *sum)
{
    const int n = sums == SIGNED ? 1 : sums;
    for (int64_t g = 0; g < k / group; g++) {
        __m256i products[TILE_COLUMNS];
        EACH products[j] = _mm256_set1_epi32(c->start[g * 8 + j]);
        const uint8_t *level = t->level + g * group * 16 + 4 * half;
        const int32_t *column = (const int32_t *)c->level + g * group / 4 * 8;
        for (int i = 0; i < group / 4; i += n)
            add_products(level + 64 * i, column + 8 * i, n, sums == SIGNED, products);
        __m256 scale = _mm256_loadu_ps(t->scale + g * 16 + half);
        const float *s = c->scale + g * group / 32 * 8;
        EACH sum[j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[j]), _mm256_mul_ps(scale, _mm256_set1_ps(s[j])), sum[j]);
        if (t->minimum) {
            __m256 minimum = _mm256_loadu_ps(t->minimum + g * 16 + half);
            EACH sum[j] = _mm256_fnmadd_ps(minimum, _mm256_set1_ps(c->weighted[g * 8 + j]), sum[j]);
        }
    }
}

static void multiply_half(int32_t type, const struct tile *t, const struct columns *c, int64_t k, int half, __m256 *sum)
{
    int sums = sums_in_16_bits(type);
    if (block_types[type].group == 32)
        switch (sums) {
        case 8: multiply_blocks(t, c, k, half, 32, 8, sum); break;
        case 4: multiply_blocks(t, c, k, half, 32, 4, sum); break;
        case 2: multiply_blocks(t, c, k, half, 32, 2, sum); break;
        case 1: multiply_blocks(t, c, k, half, 32, 1, sum); break;
        default: multiply_blocks(t, c, k, half, 32, SIGNED, sum);
        }
    else
        switch (sums) {
        case 8:
        case 4: multiply_blocks(t, c, k, half, 16, 4, sum); break;
        case 2: multiply_blocks(t, c, k, half, 16, 2, sum); break;
        case 1: multiply_blocks(t, c, k, half, 16, 1, sum); break;
        default: multiply_blocks(t, c, k, half, 16, SIGNED, sum);
        }
}

/* Four columns at a time, so that the sums of sixteen rows stay in registers. */
static void multiply_floats(const float *row, const float *column, int64_t k, float (*to)[TILE_ROWS])
{
    __m256 low[4], high[4];
    for (int j = 0; j < 4; j++)
        low[j] = high[j] = _mm256_setzero_ps();
    for (int64_t i = 0; i < k; i++, row += 16, column += 8) {
        __m256 first = _mm256_loadu_ps(row), second = _mm256_loadu_ps(row + 8);
        _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++)
        {
            __m256 x = _mm256_set1_ps(column[j]);
            low[j] = _mm256_fmadd_ps(first, x, low[j]);
            high[j] = _mm256_fmadd_ps(second, x, high[j]);
        }
    }
    for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(to[j], low[j]);
        _mm256_storeu_ps(to[j] + 8, high[j]);
    }
}

static void multiply(int32_t type, const struct tile *t, const struct columns *c, int64_t k, float (*to)[TILE_ROWS])
{
    if (t->values) {
        multiply_floats(t->values, c->values, k, to);
        multiply_floats(t->values, c->values + 4, k, to + 4);
        return;
    }
    for (int half = 0; half < TILE_ROWS; half += 8) {
        __m256 sum[TILE_COLUMNS];
        EACH sum[j] = _mm256_setzero_ps();
        multiply_half(type, t, c, k, half, sum);
        EACH _mm256_storeu_ps(to[j] + half, sum[j]);
    }
}
