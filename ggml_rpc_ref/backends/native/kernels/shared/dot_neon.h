/* Dot products with NEON, in registers of sixteen levels; a block of 32 takes two. Bytes are multiplied with their signs. */
#pragma once
#include "products_neon.h"

/* Four sums, so that one addition need not wait for the other. */
#define SUMS float32x4_t sums[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)}
#define EACH_SUM _Pragma("GCC unroll 4") /* so that i % 4 is known, and the sums are registers */
#define TOTAL vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3])))

static inline float32x4_t add_scaled(float32x4_t sum, int32x4_t products, float scale)
{
    return vfmaq_n_f32(sum, vcvtq_f32_s32(products), scale);
}

static inline int32x4_t products_of(int8x16_t w, const int8_t *x) { return add_products(vdupq_n_s32(0), w, vld1q_s8(x)); }

/* The products of 32 levels. */
static inline int32x4_t products_of_32(int8x16x2_t w, const int8_t *x)
{
    return add_products(products_of(w.val[0], x), w.val[1], vld1q_s8(x + 16));
}

float dot_levels(const struct block_type *type, const struct weights *w, const struct activations *a, int64_t k)
{
    SUMS;
    for (int64_t i = 0; i < k / 32; i++) {
        int8x16_t low = vld1q_s8(w->level + 32 * i), high = vld1q_s8(w->level + 32 * i + 16);
        const int8_t *x = a->level + 32 * i;
        if (type->group == 32) {
            int32x4_t products = products_of_32((int8x16x2_t){{low, high}}, x);
            sums[i % 4] = add_scaled(sums[i % 4], products, w->scale[i] * a->scale[i]);
        } else {
            sums[0] = add_scaled(sums[0], products_of(low, x), w->scale[2 * i] * a->scale[i]);
            sums[1] = add_scaled(sums[1], products_of(high, x + 16), w->scale[2 * i + 1] * a->scale[i]);
        }
    }
    return TOTAL - (type->has_minimum ? dot_f32(w->minimum, a->weighted, k / type->group) : 0);
}

/* ------------------------------------------------------------------------------------------------------- 32 elements */

static inline uint16_t u16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, 2);
    return x;
}

/* 16 bytes to 32 levels: the low halves, then the high ones. */
static inline uint8x16x2_t load_nibbles(const uint8_t *p)
{
    uint8x16_t both = vld1q_u8(p);
    return (uint8x16x2_t){{vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8(both, 4)}};
}

static inline int8x16x2_t less(uint8x16x2_t levels, int offset)
{
    uint8x16_t taken = vdupq_n_u8((uint8_t)offset);
    uint8x16_t low = vsubq_u8(levels.val[0], taken), high = vsubq_u8(levels.val[1], taken);
    return (int8x16x2_t){{vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)}};
}

/* 16 where a bit of two bytes is set, else 0. */
static inline uint8x16_t bits_times_16(const uint8_t *p)
{
    const uint8x8_t bit = vreinterpret_u8_u64(vdup_n_u64(0x8040201008040201));
    uint8x16_t set = vtstq_u8(vcombine_u8(vdup_n_u8(p[0]), vdup_n_u8(p[1])), vcombine_u8(bit, bit));
    return vandq_u8(set, vdupq_n_u8(16));
}

static inline uint8x16x2_t with_fifth_bits(uint8x16x2_t nibbles, const uint8_t *bits)
{
    uint8x16_t low = vorrq_u8(nibbles.val[0], bits_times_16(bits)), high = vorrq_u8(nibbles.val[1], bits_times_16(bits + 2));
    return (uint8x16x2_t){{low, high}};
}

static inline int8x16x2_t levels_of_q8_0(const uint8_t *block)
{
    return (int8x16x2_t){{vreinterpretq_s8_u8(vld1q_u8(block + 2)), vreinterpretq_s8_u8(vld1q_u8(block + 18))}};
}

static inline int8x16x2_t levels_of_q4_0(const uint8_t *block) { return less(load_nibbles(block + 2), 8); }
static inline int8x16x2_t levels_of_q5_0(const uint8_t *block)
{
    return less(with_fifth_bits(load_nibbles(block + 6), block + 2), 16);
}

static inline int8x16x2_t levels_of_q4_1(const uint8_t *block) { return less(load_nibbles(block + 4), 0); }
static inline int8x16x2_t levels_of_q5_1(const uint8_t *block)
{
    return less(with_fifth_bits(load_nibbles(block + 8), block + 4), 0);
}

static inline int8x16x2_t levels_of_iq4_nl(const uint8_t *block)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    int8x16_t table = vld1q_s8(values);
    uint8x16x2_t index = load_nibbles(block + 2);
    return (int8x16x2_t){{vqtbl1q_s8(table, index.val[0]), vqtbl1q_s8(table, index.val[1])}};
}

/* Blocks of 32 that begin with their scale and, in some types, a minimum; the same text for each type, which the compiler knows. */
static inline __attribute__((always_inline)) float dot_blocks(const uint8_t *row, const struct activations *a, int64_t k,
                                                              const int size, const bool has_minimum,
                                                              int8x16x2_t (*levels_of)(const uint8_t *block))
{
    SUMS;
    float minimums = 0;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += size) {
        int32x4_t products = products_of_32(levels_of(row), a->level + 32 * i);
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
        if (has_minimum)
            minimums += from_half(u16(row + 2)) * a->weighted[i];
    }
    return TOTAL + minimums;
}

#define DOT_BLOCKS(name, size, has_minimum) \
    static float dot_##name(const uint8_t *row, const struct activations *a, int64_t k) \
    { \
        return dot_blocks(row, a, k, size, has_minimum, levels_of_##name); \
    }
DOT_BLOCKS(q8_0, 34, false)
DOT_BLOCKS(q4_0, 18, false)
DOT_BLOCKS(q5_0, 22, false)
DOT_BLOCKS(q4_1, 20, true)
DOT_BLOCKS(q5_1, 24, true)
DOT_BLOCKS(iq4_nl, 18, false)

/* ------------------------------------------------------------------------------------------------------- the K types

   The scales within a block are whole numbers, and so are products times scales: only their sum for the block, of less than 2^25
   in a lane, becomes a float. */

/* The twelve scale bytes of Q4_K and Q5_K: eight scales, and the sum of eight minimums times the activations' sums. */
static inline float six_bit_pairs(const uint8_t *packed, const float *weighted, int32_t *scale)
{
    uint32_t part[3];
    memcpy(part, packed, 12);
    uint64_t scales = part[0] & 0x3F3F3F3Fu, minimums = part[1] & 0x3F3F3F3Fu;
    scales |= (uint64_t)((part[2] & 0x0F0F0F0Fu) | (part[0] >> 2 & 0x30303030u)) << 32;
    minimums |= (uint64_t)((part[2] >> 4 & 0x0F0F0F0Fu) | (part[1] >> 2 & 0x30303030u)) << 32;
    int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(scales)));
    vst1q_s32(scale, vmovl_s16(vget_low_s16(wide)));
    vst1q_s32(scale + 4, vmovl_high_s16(wide));
    uint16x8_t other = vmovl_u8(vcreate_u8(minimums));
    float32x4_t sum = vmulq_f32(vcvtq_f32_u32(vmovl_u16(vget_low_u16(other))), vld1q_f32(weighted));
    return vaddvq_f32(vfmaq_f32(sum, vcvtq_f32_u32(vmovl_high_u16(other)), vld1q_f32(weighted + 4)));
}

/* Four parts of 64 levels, the low halves of 32 bytes and their high ones; Q5_K has the fifth bits, two of a part, in 32 more. */
static inline __attribute__((always_inline)) float dot_pairs(const uint8_t *row, const struct activations *a, int64_t k,
                                                             const int size, const bool five)
{
    float32x4_t sum = vdupq_n_f32(0);
    float minimums = 0;
    for (int64_t i = 0; i < k / 256; i++, row += size) {
        int32_t scale[8];
        minimums += from_half(u16(row + 2)) * six_bit_pairs(row + 4, a->weighted + 8 * i, scale);
        const uint8_t *nibbles = row + (five ? 48 : 16);
        const int8_t *x = a->level + 256 * i;
        uint8x16_t bits[2] = {vld1q_u8(row + 16), vld1q_u8(row + 32)};
        int32x4_t block = vdupq_n_s32(0);
        for (int j = 0; j < 4; j++) {
            int8x16x2_t first, second;
            for (int half = 0; half < 2; half++) {
                uint8x16_t both = vld1q_u8(nibbles + 32 * j + 16 * half);
                uint8x16_t low = vandq_u8(both, vdupq_n_u8(15)), high = vshrq_n_u8(both, 4);
                if (five) {
                    low = vorrq_u8(low, vandq_u8(vshlq_n_u8(bits[half], 4), vdupq_n_u8(16)));
                    high = vorrq_u8(high, vandq_u8(vshlq_n_u8(bits[half], 3), vdupq_n_u8(16)));
                    bits[half] = vshrq_n_u8(bits[half], 2);
                }
                first.val[half] = vreinterpretq_s8_u8(low);
                second.val[half] = vreinterpretq_s8_u8(high);
            }
            block = vmlaq_n_s32(block, products_of_32(first, x + 64 * j), scale[2 * j]);
            block = vmlaq_n_s32(block, products_of_32(second, x + 64 * j + 32), scale[2 * j + 1]);
        }
        sum = add_scaled(sum, block, from_half(u16(row)) * a->scale[8 * i]);
    }
    return vaddvq_f32(sum) - minimums;
}

static float dot_q4_k(const uint8_t *row, const struct activations *a, int64_t k) { return dot_pairs(row, a, k, 144, false); }
static float dot_q5_k(const uint8_t *row, const struct activations *a, int64_t k) { return dot_pairs(row, a, k, 176, true); }

/* Sixteen levels of Q6_K, of which there are the low four bits and, in bits 4 and 5, the high ones. */
static inline int8x16_t levels_of_q6_k(uint8x16_t low, uint8x16_t high)
{
    uint8x16_t level = vorrq_u8(low, vandq_u8(high, vdupq_n_u8(0x30)));
    return vreinterpretq_s8_u8(vsubq_u8(level, vdupq_n_u8(32)));
}

static float dot_q6_k(const uint8_t *row, const struct activations *a, int64_t k)
{
    float32x4_t sum = vdupq_n_f32(0);
    const uint8x16_t low = vdupq_n_u8(15);
    for (int64_t i = 0; i < k / 256; i++, row += 210) {
        int32x4_t block = vdupq_n_s32(0);
        for (int part = 0; part < 4; part++) { /* two of 128 levels, each with the first or the second sixteen bytes of 32 */
            int at = 16 * (part % 2);
            const uint8_t *nibbles = row + 64 * (part / 2) + at;
            const int8_t *x = a->level + 256 * i + 128 * (part / 2) + at;
            const int8_t *scale = (const int8_t *)row + 192 + 8 * (part / 2) + part % 2;
            uint8x16_t first = vld1q_u8(nibbles), second = vld1q_u8(nibbles + 32);
            uint8x16_t high = vld1q_u8(row + 128 + 32 * (part / 2) + at);
            int8x16_t levels = levels_of_q6_k(vandq_u8(first, low), vshlq_n_u8(high, 4));
            block = vmlaq_n_s32(block, products_of(levels, x), scale[0]);
            levels = levels_of_q6_k(vandq_u8(second, low), vshlq_n_u8(high, 2));
            block = vmlaq_n_s32(block, products_of(levels, x + 32), scale[2]);
            levels = levels_of_q6_k(vshrq_n_u8(first, 4), high);
            block = vmlaq_n_s32(block, products_of(levels, x + 64), scale[4]);
            levels = levels_of_q6_k(vshrq_n_u8(second, 4), vshrq_n_u8(high, 2));
            block = vmlaq_n_s32(block, products_of(levels, x + 96), scale[6]);
        }
        sum = add_scaled(sum, block, from_half(u16(row + 208)) * a->scale[8 * i]);
    }
    return vaddvq_f32(sum);
}
