/* Tiles with NEON: four rows in a register, four levels of each in a lane, so a tile is four quarters. Bytes are multiplied with
   their signs; without the instruction for four products, several pairs of small levels are added in sixteen bits. */
#pragma once
#include "products_neon.h"
#include "tile_layout.h"

/* How many words of a type's levels are added in sixteen bits. */
static int words_of(int32_t type)
{
    const struct block_type *blocks = &block_types[type];
    return words_in_16_bits(-blocks->lowest > blocks->highest ? -blocks->lowest : blocks->highest);
}

/* Columns from which on unpacking pays: what was measured with AVX2, which has as many instructions; nobody has measured it here. */
#define TILES_FROM_FLOATS 8
static int tiles_from_blocks(int32_t type)
{
#if defined(__ARM_FEATURE_DOTPROD)
    (void)type;
    return 8;
#else
    return words_of(type) == 1 ? 16 : 8; /* large levels take as long in a tile as one by one */
#endif
}

/* What is added to levels of a type: nothing. */
static int tile_offset(int32_t type)
{
    (void)type;
    return 0;
}

/* Transpose 4 x 4 words: to[i][r] = from[r][i]. */
static inline void transpose(const uint32x4_t *from, uint32x4_t *to)
{
    for (int i = 0; i < 2; i++) {
        uint64x2_t a, b; /* words 2i and 2i + 1 of rows 0 and 1, and of rows 2 and 3 */
        a = vreinterpretq_u64_u32(i ? vzip2q_u32(from[0], from[1]) : vzip1q_u32(from[0], from[1]));
        b = vreinterpretq_u64_u32(i ? vzip2q_u32(from[2], from[3]) : vzip1q_u32(from[2], from[3]));
        to[2 * i] = vreinterpretq_u32_u64(vzip1q_u64(a, b));
        to[2 * i + 1] = vreinterpretq_u32_u64(vzip2q_u64(a, b));
    }
}

/* n words of each of sixteen rows, which lie `stride` bytes apart, to [n][16]; n is a multiple of 4. */
static void interleave(const uint8_t *from, int64_t stride, int64_t n, int offset, uint8_t *to)
{
    (void)offset;
    for (int64_t i = 0; i < n; i += 4)
        for (int quarter = 0; quarter < 4; quarter++) {
            uint32x4_t in[4], out[4];
            for (int r = 0; r < 4; r++)
                in[r] = vreinterpretq_u32_u8(vld1q_u8(from + (4 * quarter + r) * stride + 4 * i));
            transpose(in, out);
            for (int c = 0; c < 4; c++)
                vst1q_u8(to + (i + c) * 64 + 16 * quarter, vreinterpretq_u8_u32(out[c]));
        }
}

/* n words of four rows, of which `level` is the first, times those of eight columns, added to `sum`. */
static inline __attribute__((always_inline)) void add_words(const uint8_t *level, const int8_t *column, const int n, int32x4_t *sum)
{
#if defined(__ARM_FEATURE_DOTPROD)
    for (int i = 0; i < n; i++) {
        int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(level + 64 * i));
        int8x16_t low = vld1q_s8(column + 32 * i), high = vld1q_s8(column + 32 * i + 16);
#define TWO_COLUMNS(j) \
    sum[j] = vdotq_laneq_s32(sum[j], w, low, j); \
    sum[j + 4] = vdotq_laneq_s32(sum[j + 4], w, high, j)
        TWO_COLUMNS(0);
        TWO_COLUMNS(1);
        TWO_COLUMNS(2);
        TWO_COLUMNS(3);
#undef TWO_COLUMNS
    }
#else
    struct narrow products[TILE_COLUMNS];
    EACH products[j] = no_products();
    _Pragma("GCC unroll 8") for (int i = 0; i < n; i++)
    {
        int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(level + 64 * i));
        EACH products[j] = add_narrow(products[j], w, column + 32 * i + 4 * j);
    }
    EACH sum[j] = add_widened(sum[j], products[j]);
#endif
}

/* Four rows, from row `first` on, with eight columns: products of a group are summed as integers, then scaled. n: words at once. */
static inline __attribute__((always_inline)) void multiply_blocks(const struct tile *t, const struct columns *c, int64_t k,
                                                                  int first, const int group, const int n, float32x4_t *sum)
{
    for (int64_t g = 0; g < k / group; g++) {
        int32x4_t products[TILE_COLUMNS];
        EACH products[j] = vdupq_n_s32(0);
        const uint8_t *level = t->level + g * group * 16 + 4 * first;
        const int8_t *column = c->level + g * group * 8;
        for (int i = 0; i < group / 4; i += n)
            add_words(level + 64 * i, column + 32 * i, n, products);
        float32x4_t scale = vld1q_f32(t->scale + g * 16 + first);
        const float *s = c->scale + g * group / 32 * 8;
        EACH sum[j] = vfmaq_f32(sum[j], vcvtq_f32_s32(products[j]), vmulq_n_f32(scale, s[j]));
        if (t->minimum) {
            float32x4_t minimum = vld1q_f32(t->minimum + g * 16 + first);
            EACH sum[j] = vfmsq_n_f32(sum[j], minimum, c->weighted[g * 8 + j]);
        }
    }
}

static void multiply_quarter(int32_t type, const struct tile *t, const struct columns *c, int64_t k, int first, float32x4_t *sum)
{
    if (block_types[type].group == 32)
        switch (words_of(type)) {
        case 8: multiply_blocks(t, c, k, first, 32, 8, sum); break;
        case 4: multiply_blocks(t, c, k, first, 32, 4, sum); break;
        case 2: multiply_blocks(t, c, k, first, 32, 2, sum); break;
        default: multiply_blocks(t, c, k, first, 32, 1, sum);
        }
    else
        switch (words_of(type)) {
        case 8:
        case 4: multiply_blocks(t, c, k, first, 16, 4, sum); break;
        case 2: multiply_blocks(t, c, k, first, 16, 2, sum); break;
        default: multiply_blocks(t, c, k, first, 16, 1, sum);
        }
}

/* Four columns at a time, so that the sums of sixteen rows stay in registers. */
static void multiply_floats(const float *row, const float *column, int64_t k, float (*to)[TILE_ROWS])
{
    float32x4_t sum[4][4];
    for (int j = 0; j < 4; j++)
        for (int q = 0; q < 4; q++)
            sum[j][q] = vdupq_n_f32(0);
    for (int64_t i = 0; i < k; i++, row += 16, column += 8)
        _Pragma("GCC unroll 4") for (int q = 0; q < 4; q++)
        {
            float32x4_t four = vld1q_f32(row + 4 * q);
            _Pragma("GCC unroll 4") for (int j = 0; j < 4; j++) sum[j][q] = vfmaq_n_f32(sum[j][q], four, column[j]);
        }
    for (int j = 0; j < 4; j++)
        for (int q = 0; q < 4; q++)
            vst1q_f32(to[j] + 4 * q, sum[j][q]);
}

static void multiply(int32_t type, const struct tile *t, const struct columns *c, int64_t k, float (*to)[TILE_ROWS])
{
    if (t->values) {
        multiply_floats(t->values, c->values, k, to);
        multiply_floats(t->values, c->values + 4, k, to + 4);
        return;
    }
    for (int first = 0; first < TILE_ROWS; first += 4) {
        float32x4_t sum[TILE_COLUMNS];
        EACH sum[j] = vdupq_n_f32(0);
        multiply_quarter(type, t, c, k, first, sum);
        EACH vst1q_f32(to[j] + first, sum[j]);
    }
}
