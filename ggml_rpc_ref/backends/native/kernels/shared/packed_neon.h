/* Packed weights with NEON: eight rows in two registers. */
#pragma once
#include "products_neon.h"

#define OFFSET_Q8_0 0 /* added to levels, which stay signed */

/* Bit i of a byte is the fifth bit of that byte of word i: [8 rows][4]. */
static void put_fifth_bit(uint8_t *bits, int word, int at, int bit) { bits[at] = (uint8_t)(bits[at] | bit << word); }

/* Eight words of four rows times 32 activations, added to the sums of the rows; `most`: the largest magnitude of a level. */
static inline __attribute__((always_inline)) int32x4_t add_words(int32x4_t sum, const int8x16_t *w, const int8_t *x, const int most)
{
#if defined(__ARM_FEATURE_DOTPROD)
    (void)most;
    int8x16_t low = vld1q_s8(x), high = vld1q_s8(x + 16);
#define TWO_WORDS(i) sum = vdotq_laneq_s32(vdotq_laneq_s32(sum, w[i], low, i), w[i + 4], high, i)
    TWO_WORDS(0);
    TWO_WORDS(1);
    TWO_WORDS(2);
    TWO_WORDS(3);
#undef TWO_WORDS
#else
    const int at_once = words_in_16_bits(most);
    struct narrow products = no_products();
    EACH_WORD(i, 8)
    {
        products = add_narrow(products, w[i], x + 4 * i);
        if ((i + 1) % at_once == 0) {
            sum = add_widened(sum, products);
            products = no_products();
        }
    }
#endif
    return sum;
}

/* The levels of four rows, a word of each in a register. */
static inline __attribute__((always_inline)) void load_words(const int32_t type, const uint8_t *levels, const uint8_t *bits,
                                                             int8x16_t *w)
{
    if (type == GGML_TYPE_Q8_0) {
        EACH_WORD(i, 8) w[i] = vreinterpretq_s8_u8(vld1q_u8(levels + 32 * i));
        return;
    }
    uint8x16_t fifth = type == GGML_TYPE_Q5_0 ? vld1q_u8(bits) : vdupq_n_u8(0);
    EACH_WORD(i, 4)
    {
        uint8x16_t both = vld1q_u8(levels + 32 * i), low = vandq_u8(both, vdupq_n_u8(15)), high = vshrq_n_u8(both, 4);
        if (type == GGML_TYPE_Q5_0) {
            const uint8x16_t first = vdupq_n_u8((uint8_t)(1 << i)), second = vdupq_n_u8((uint8_t)(16 << i));
            low = vorrq_u8(low, vandq_u8(vtstq_u8(fifth, first), vdupq_n_u8(16)));
            high = vorrq_u8(high, vandq_u8(vtstq_u8(fifth, second), vdupq_n_u8(16)));
        }
        w[i] = vreinterpretq_s8_u8(low);
        w[i + 4] = vreinterpretq_s8_u8(high);
    }
}

/* The same text for each type, which the compiler knows in each copy. */
static inline __attribute__((always_inline)) void multiply_typed(const int32_t type, const uint8_t *packed,
                                                                 const struct activations *a, int64_t k, float *to)
{
    struct packed p = packed_at(type, packed, k);
    float32x4_t sum[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
    const int offset = type == GGML_TYPE_Q8_0 ? OFFSET_Q8_0 : type == GGML_TYPE_Q5_0 ? 16 : 8;
    const int most = type == GGML_TYPE_Q8_0 ? 128 : 2 * offset - 1;
    for (int64_t i = 0; i < k / 32; i++) {
        float16x8_t scales = vreinterpretq_f16_u8(vld1q_u8(p.scales + 16 * i));
        float32x4_t scale[2] = {vcvt_f32_f16(vget_low_f16(scales)), vcvt_high_f32_f16(scales)};
        for (int four = 0; four < 2; four++) {
            int8x16_t w[8];
            load_words(type, p.levels + level_bytes(type) * i + 16 * four, p.bits + bit_bytes(type) * i + 16 * four, w);
            int32x4_t products = add_words(vdupq_n_s32(-offset * a->sum[i]), w, a->level + 32 * i, most);
            sum[four] = vfmaq_f32(sum[four], vcvtq_f32_s32(products), vmulq_n_f32(scale[four], a->scale[i]));
        }
    }
    vst1q_f32(to, sum[0]);
    vst1q_f32(to + 4, sum[1]);
}
