/* Tiles with AVX-512: sixteen rows in a register, four levels of each in a lane (vpdpbusd). */
#pragma once
#include <immintrin.h>

#include "tile_layout.h"
#include "vector.h"

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

/* 64 levels of a row from a block on, with the offset; what `unpack` has of them, without the detour through memory. */
static inline __m512i two_halves(__m256i low, __m256i high) { return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1); }

static inline __m256i sixteen_nibbles(const uint8_t *p)
{
    __m128i packed = _mm_loadu_si128((const void *)p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(packed, 4), packed), _mm256_set1_epi8(15));
}

static inline __m512i with_fifth_bits(__m512i nibbles, const uint8_t *first, const uint8_t *second)
{
    uint32_t low, high;
    memcpy(&low, first, 4);
    memcpy(&high, second, 4);
    return _mm512_mask_add_epi8(nibbles, (uint64_t)high << 32 | low, nibbles, _mm512_set1_epi8(16));
}

static inline __attribute__((always_inline)) __m512i levels_at(const int32_t type, const uint8_t *b)
{
    switch (type) {
    case GGML_TYPE_Q8_0:
        return _mm512_add_epi8(two_halves(_mm256_loadu_si256((const void *)(b + 2)), _mm256_loadu_si256((const void *)(b + 36))),
                               _mm512_set1_epi8((char)128));
    case GGML_TYPE_Q4_0: return _mm512_add_epi8(two_halves(sixteen_nibbles(b + 2), sixteen_nibbles(b + 20)), _mm512_set1_epi8(120));
    default: { /* Q5_0 */
        __m512i nibbles = two_halves(sixteen_nibbles(b + 6), sixteen_nibbles(b + 28));
        return _mm512_add_epi8(with_fifth_bits(nibbles, b + 2, b + 24), _mm512_set1_epi8(112));
    }
    }
}

/* Sixteen rows, of which `count` are there, two blocks at a time; returns how many elements are done. */
static inline __attribute__((always_inline)) int64_t tile_pairs(const int32_t type, const uint8_t *rows, int64_t stride, int count,
                                                                int64_t k, const struct tile *t)
{
    const int size = type == GGML_TYPE_Q8_0 ? 34 : type == GGML_TYPE_Q5_0 ? 22 : 18;
    int64_t done = 0;
    for (; done + 64 <= k; done += 64) {
        const uint8_t *b = rows + done / 32 * size;
        float *scale = t->scale + done / 32 * 16;
        __m512i in[16], out[16];
        for (int r = 0; r < 16; r++) {
            in[r] = _mm512_setzero_si512();
            scale[r] = scale[16 + r] = 0;
        }
        for (int r = 0; r < count; r++, b += stride) {
            uint16_t first, second;
            in[r] = levels_at(type, b);
            memcpy(&first, b, 2); /* each of these types begins with it */
            memcpy(&second, b + size, 2);
            scale[r] = from_half(first);
            scale[16 + r] = from_half(second);
        }
        transpose(in, out);
        for (int c = 0; c < 16; c++)
            _mm512_storeu_si512(t->level + done * 16 + c * 64, out[c]);
    }
    return done;
}

/* The two functions below unpack sixteen rows side by side; what they leave, tile.c unpacks piece by piece. */
#define UNPACKS_AT_ONCE

/* The types that models of single tokens' size are mostly made of. */
static int64_t tile_at_once(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, const struct tile *t)
{
    switch (type) {
    case GGML_TYPE_Q8_0: return tile_pairs(GGML_TYPE_Q8_0, rows, stride, count, k, t);
    case GGML_TYPE_Q4_0: return tile_pairs(GGML_TYPE_Q4_0, rows, stride, count, k, t);
    case GGML_TYPE_Q5_0: return tile_pairs(GGML_TYPE_Q5_0, rows, stride, count, k, t);
    default: return 0;
    }
}

/* Rows of F32, F16 or BF16, sixteen elements at a time; returns how many are done. */
static int64_t tile_floats_at_once(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, float *to)
{
    const int size = type == GGML_TYPE_F32 ? 4 : 2;
    int64_t done = 0;
    for (; done + 16 <= k; done += 16) {
        __m512i in[16], out[16];
        for (int r = 0; r < 16; r++)
            in[r] = r < count ? (__m512i)load_floats(rows + r * stride + done * size, type) : _mm512_setzero_si512();
        transpose(in, out);
        for (int c = 0; c < 16; c++)
            _mm512_storeu_si512(to + (done + c) * 16, out[c]);
    }
    return done;
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

/* Two sums of each column: eight would leave no time between one addition and the next. */
static void multiply_floats(const float *row, const float *column, int64_t k, __m512 *sum)
{
    __m512 other[TILE_COLUMNS];
    EACH other[j] = _mm512_setzero_ps();
    int64_t i = 0;
    for (; i + 2 <= k; i += 2, row += 32, column += 16) {
        __m512 w = _mm512_loadu_ps(row), next = _mm512_loadu_ps(row + 16);
        EACH sum[j] = _mm512_fmadd_ps(w, _mm512_set1_ps(column[j]), sum[j]);
        EACH other[j] = _mm512_fmadd_ps(next, _mm512_set1_ps(column[8 + j]), other[j]);
    }
    if (i < k)
        EACH sum[j] = _mm512_fmadd_ps(_mm512_loadu_ps(row), _mm512_set1_ps(column[j]), sum[j]);
    EACH sum[j] = _mm512_add_ps(sum[j], other[j]);
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
