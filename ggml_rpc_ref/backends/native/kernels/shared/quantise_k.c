/* See quantise_k.h; blocks/k_search.py has the searches in numpy, SPEC.md in words.

   Sub-blocks of a block are searched side by side, one in each lane, so that each lane's sums run from its first element to its
   last: their order is part of the result. A block has 8 or 16 of them, which takes as many vectors as it takes. */
#if defined(__GNUC__) && !defined(__clang__)
/* At -O3 gcc 12 unrolls the searches until this file takes ten seconds to compile, and gains little. */
#pragma GCC optimize("O2")
#endif
#include "quantise_k.h"

#include "half.h"
#include "vector.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MOST 32               /* elements of a sub-block */
#define VECTORS (16 / LANES)  /* that the sub-blocks of a block take at the most */

static void put16(uint8_t *p, uint16_t x) { memcpy(p, &x, 2); }
static float f16_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return from_half(half);
}

/* Nearest integers, ties to even: the mantissa once 1.5 * 2^23 is added; what is too large is whatever the bits then say. */
static inline i32x16 nearest16(f32x16 v) { return (((i32x16)(v + 12582912.0f)) & 0x007FFFFF) - 0x00400000; }
static inline int32_t nearest(float v) { return (int32_t)((as_bits(v + 12582912.0f) & 0x007FFFFF) - 0x00400000); }

static inline i32x16 held(i32x16 v, int low, int high)
{
#if defined(__AVX2__) && LANES == 8
    return (i32x16)_mm256_min_epi32(_mm256_max_epi32((__m256i)v, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
#elif defined(__AVX512F__) && LANES == 16
    return (i32x16)_mm512_min_epi32(_mm512_max_epi32((__m512i)v, _mm512_set1_epi32(low)), _mm512_set1_epi32(high));
#elif defined(NEON)
    return (i32x16)vminq_s32(vmaxq_s32((int32x4_t)v, vdupq_n_s32(low)), vdupq_n_s32(high));
#else
    i32x16 below = v < low, above = v > high;
    return (below & low) | (above & high) | (v & ~(below | above));
#endif
}

static inline f32x16 floats(i32x16 v) { return __builtin_convertvector(v, f32x16); }
static inline f32x16 magnitude16(f32x16 v) { return (f32x16)((i32x16)v & 0x7FFFFFFF); }
static inline i32x16 choose_int(i32x16 mask, i32x16 a, i32x16 b) { return (a & mask) | (b & ~mask); }

/* Some sub-blocks, one in each lane, and what a search finds for them. */
struct found {
    f32x16 x[MOST]; /* by element */
    f32x16 scale, minimum;
    i32x16 level[MOST];
};

/* Vectors that the sub-blocks of n elements take. */
static int vectors_of(int n) { return 256 / n > LANES ? 256 / n / LANES : 1; }

/* The elements of a block by lanes; those that no sub-block has are zeros. */
static void to_columns(const float *from, int n, struct found *to)
{
    for (int v = 0; v < vectors_of(n); v++, from += LANES * n)
        for (int e = 0; e < n; e++) {
            f32x16 x = {0};
            for (int s = 0; s < LANES && s < 256 / n; s++)
                x[s] = from[s * n + e];
            to[v].x[e] = x;
        }
}

/* ------------------------------------------------------------------------------------------------------- the searches */

static inline i32x16 level_for(f32x16 x, f32x16 factor, f32x16 minimum, int limit)
{
    return held(nearest16(factor * (x - minimum)), 0, limit);
}

static f32x16 error_of(const f32x16 *x, const f32x16 *w, int n, const i32x16 *level, f32x16 scale, f32x16 minimum, bool absolute)
{
    f32x16 sum = {0};
    for (int e = 0; e < n; e++) {
        f32x16 difference = scale * floats(level[e]) + minimum - x[e];
        sum += w[e] * (absolute ? magnitude16(difference) : difference * difference);
    }
    return sum;
}

/* A scale and a minimum for levels 0 to limit (Q2_K, Q4_K, Q5_K). */
static void search_with_minimum(struct found *to, const f32x16 *w, int n, int limit, float first, int steps, bool absolute)
{
    const f32x16 *x = to->x;
    f32x16 low = x[0], high = x[0], sum_w = {0}, sum_x = {0};
    for (int e = 1; e < n; e++) {
        low = choose(x[e] < low, x[e], low);
        high = choose(x[e] > high, x[e], high);
    }
    low = choose(low > splat(0), splat(0), low);
    for (int e = 0; e < n; e++) {
        sum_w += w[e];
        sum_x += w[e] * x[e];
    }
    f32x16 scale = 1.0f / ((float)limit / (high - low)), minimum = low, factor = (float)limit / (high - minimum);
    for (int e = 0; e < n; e++)
        to->level[e] = level_for(x[e], factor, minimum, limit);
    f32x16 best = error_of(x, w, n, to->level, scale, minimum, absolute);
    for (int i = 0; i <= steps; i++) {
        i32x16 trial[MOST];
        f32x16 sum_q = {0}, sum_qq = {0}, sum_qx = {0};
        factor = (first + 0.1f * (float)i + (float)limit) / (high - minimum);
        for (int e = 0; e < n; e++) {
            trial[e] = level_for(x[e], factor, minimum, limit);
            f32x16 q = floats(trial[e]), weighted = w[e] * q;
            sum_q += weighted;
            sum_qq += weighted * q;
            sum_qx += weighted * x[e];
        }
        f32x16 determinant = sum_w * sum_qq - sum_q * sum_q;
        f32x16 a = (sum_w * sum_qx - sum_x * sum_q) / determinant, b = (sum_qq * sum_x - sum_q * sum_qx) / determinant;
        i32x16 above = b > splat(0);
        a = choose(above, sum_qx / sum_qq, a);
        b = choose(above, splat(0), b);
        f32x16 error = error_of(x, w, n, trial, a, b, absolute);
        i32x16 better = (determinant > splat(0)) & (error < best);
        if (!any(better))
            continue;
        best = choose(better, error, best);
        scale = choose(better, a, scale);
        minimum = choose(better, b, minimum);
        for (int e = 0; e < n; e++)
            to->level[e] = choose_int(better, trial[e], to->level[e]);
    }
    to->scale = scale;
    to->minimum = -minimum;
}

/* The first element of largest magnitude of each sub-block, and that magnitude. */
static f32x16 largest_of(const f32x16 *x, int n, f32x16 *magnitude)
{
    f32x16 element = {0};
    *magnitude = splat(0);
    for (int e = 0; e < n; e++) {
        f32x16 size = magnitude16(x[e]);
        i32x16 larger = size > *magnitude;
        *magnitude = choose(larger, size, *magnitude);
        element = choose(larger, x[e], element);
    }
    return element;
}

/* Levels for a scale, and their sums with weights x * x. */
static void fit(const f32x16 *x, f32x16 factor, int limit, i32x16 *level, f32x16 *sum_xq, f32x16 *sum_qq)
{
    *sum_xq = *sum_qq = splat(0);
    for (int e = 0; e < 16; e++) {
        level[e] = held(nearest16(factor * x[e]), -limit, limit - 1);
        f32x16 q = floats(level[e]), w = x[e] * x[e];
        *sum_xq += w * x[e] * q;
        *sum_qq += w * q * q;
    }
}

/* What is near 0 throughout has scale 0 and levels -limit, which are stored as 0. */
static void finish_search(struct found *to, f32x16 magnitude, int limit)
{
    i32x16 zero = magnitude < splat(1e-15f);
    to->scale = choose(zero, splat(0), to->scale);
    for (int e = 0; e < 16; e++)
        to->level[e] = choose_int(~zero, to->level[e] + limit, (i32x16){0});
}

/* A scale for levels -limit to limit - 1 (Q6_K). */
static void search_symmetric(struct found *to, int limit)
{
    const f32x16 *x = to->x;
    f32x16 magnitude, largest = largest_of(x, 16, &magnitude), sum_xq, sum_qq;
    fit(x, -(float)limit / largest, limit, to->level, &sum_xq, &sum_qq);
    f32x16 scale = choose(sum_qq != splat(0), sum_xq / sum_qq, splat(0)), best = scale * sum_xq;
    for (int step = -9; step <= 9; step++) {
        if (step == 0)
            continue;
        i32x16 trial[16];
        fit(x, -((float)limit + 0.1f * (float)step) / largest, limit, trial, &sum_xq, &sum_qq);
        i32x16 better = (sum_qq > splat(0)) & (sum_xq * sum_xq > best * sum_qq);
        if (!any(better))
            continue;
        scale = choose(better, sum_xq / sum_qq, scale);
        best = choose(better, scale * sum_xq, best);
        for (int e = 0; e < 16; e++)
            to->level[e] = choose_int(better, trial[e], to->level[e]);
    }
    to->scale = scale;
    finish_search(to, magnitude, limit);
}

/* A scale for levels -4 to 3; then each element in turn moves to the level that the others suggest, if that fits better (Q3_K). */
static void search_q3(struct found *to)
{
    const f32x16 *x = to->x;
    f32x16 magnitude, largest = largest_of(x, 16, &magnitude), sum_xq, sum_qq;
    fit(x, -4.0f / largest, 4, to->level, &sum_xq, &sum_qq);
    for (int round = 0; round < 5; round++)
        for (int e = 0; e < 16; e++) {
            f32x16 w = x[e] * x[e], q = floats(to->level[e]);
            f32x16 others_xq = sum_xq - w * x[e] * q, others_qq = sum_qq - w * q * q;
            i32x16 moved = held(nearest16(x[e] * others_qq / others_xq), -4, 3);
            f32x16 p = floats(moved), new_xq = others_xq + w * x[e] * p, new_qq = others_qq + w * p * p;
            i32x16 better = (others_xq > splat(0)) & (moved != to->level[e]) & (new_qq > splat(0));
            better &= new_xq * new_xq * sum_qq > sum_xq * sum_xq * new_qq;
            to->level[e] = choose_int(better, moved, to->level[e]);
            sum_xq = choose(better, new_xq, sum_xq);
            sum_qq = choose(better, new_qq, sum_qq);
        }
    to->scale = choose(sum_qq > splat(0), sum_xq / sum_qq, splat(0));
    finish_search(to, magnitude, 4);
}

/* ---------------------------------------------------------------------------------------------------------- the blocks */

/* The scales and minimums of all sub-blocks in order. */
static void list_scales(const struct found *found, int n, float *scale, float *minimum)
{
    for (int v = 0; v < vectors_of(n); v++) {
        memcpy(scale + v * LANES, &found[v].scale, sizeof found->scale);
        if (minimum)
            memcpy(minimum + v * LANES, &found[v].minimum, sizeof found->minimum);
    }
}

/* Levels under the scales as they are stored, less `low`, by element; where a scale is 0 the searched ones stay. */
static void final_levels(const struct found *found, int n, const float *scale, const float *minimum, int low, int high, uint8_t *level)
{
    for (int v = 0; v < vectors_of(n); v++, found++, level += LANES * n) {
        f32x16 s = load16(scale + v * LANES), m = load16(minimum + v * LANES);
        i32x16 some = s != splat(0);
        for (int e = 0; e < n; e++) {
            i32x16 q = choose_int(some, held(nearest16((found->x[e] + m) / s), low, high) - low, found->level[e]);
            for (int lane = 0; lane < LANES && lane < 256 / n; lane++)
                level[lane * n + e] = (uint8_t)q[lane];
        }
    }
}

/* The half of largest / limit, and the scales as multiples of it. */
static uint16_t rounded_scales(const float *scales, int count, int limit, uint8_t *to)
{
    float largest = 0;
    for (int i = 0; i < count; i++)
        largest = scales[i] > largest ? scales[i] : largest;
    float factor = largest > 0 ? (float)limit / largest : 0;
    for (int i = 0; i < count; i++)
        to[i] = (uint8_t)nearest(factor * scales[i]);
    return to_half(largest / (float)limit);
}

/* Two bits each: of 128 levels those of 32 apart go into one byte. */
static void pack_pairs(const uint8_t *level, uint8_t *to, int shift)
{
    for (int part = 0; part < 2; part++)
        for (int i = 0; i < 32; i++) {
            const uint8_t *l = level + 128 * part + i;
            to[32 * part + i] = (uint8_t)((l[0] >> shift & 3) | (l[32] >> shift & 3) << 2 | (l[64] >> shift & 3) << 4 |
                                          (l[96] >> shift & 3) << 6);
        }
}

/* One bit of each level: bit e / 32 of byte e % 32. */
static void pack_bits(const uint8_t *level, int bit, uint8_t *to)
{
    memset(to, 0, 32);
    for (int e = 0; e < 256; e++)
        to[e % 32] |= (uint8_t)((level[e] >> bit & 1) << e / 32);
}

void quantise_q2_k(const float *from, uint8_t *to)
{
    struct found found[VECTORS];
    uint8_t scales[16], minimums[16], level[256];
    float part[16], shift[16];
    to_columns(from, 16, found);
    for (int v = 0; v < vectors_of(16); v++) {
        f32x16 w[16];
        for (int e = 0; e < 16; e++)
            w[e] = magnitude16(found[v].x[e]);
        search_with_minimum(&found[v], w, 16, 3, -0.5f, 15, true);
    }
    list_scales(found, 16, part, shift);
    put16(to + 80, rounded_scales(part, 16, 15, scales));
    put16(to + 82, rounded_scales(shift, 16, 15, minimums));
    for (int i = 0; i < 16; i++) {
        to[i] = (uint8_t)(scales[i] | minimums[i] << 4);
        part[i] = (to[i] & 15) * f16_at(to + 80);
        shift[i] = (to[i] >> 4) * f16_at(to + 82);
    }
    final_levels(found, 16, part, shift, 0, 3, level);
    pack_pairs(level, to + 16, 0);
}

void quantise_q3_k(const float *from, uint8_t *to)
{
    struct found found[VECTORS];
    uint8_t level[256];
    float part[16], scale[16], none[16] = {0}, largest = 0;
    to_columns(from, 16, found);
    for (int v = 0; v < vectors_of(16); v++)
        search_q3(&found[v]);
    list_scales(found, 16, scale, NULL);
    for (int i = 0; i < 16; i++)
        largest = fabsf(scale[i]) > fabsf(largest) ? scale[i] : largest;
    memset(to, 0, 110);
    float factor = -32.0f / largest;
    if (largest != 0) {
        put16(to + 108, to_half(1.0f / factor));
        for (int i = 0; i < 16; i++) {
            int8_t s = (int8_t)nearest(factor * scale[i]);
            unsigned six = (unsigned)((s < -32 ? -32 : s > 31 ? 31 : s) + 32);
            to[96 + i % 8] |= (uint8_t)((six & 15) << (i < 8 ? 0 : 4));
            to[104 + i % 4] |= (uint8_t)(six >> 4 << 2 * (i / 4));
        }
    }
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? to[96 + i] & 15 : to[96 + i - 8] >> 4, high = to[104 + i % 4] >> 2 * (i / 4) & 3;
        part[i] = (float)((low | high << 4) - 32) * f16_at(to + 108);
    }
    final_levels(found, 16, part, none, -4, 3, level);
    pack_pairs(level, to + 32, 0);
    pack_bits(level, 2, to);
}

/* What Q4_K and Q5_K share: d, dmin and the scale bytes; returns the levels. */
static void with_six_bits(const float *from, int limit, float first, int steps, uint8_t *to, uint8_t *level)
{
    struct found found[VECTORS];
    uint8_t s[8], m[8];
    float part[16] = {0}, shift[16] = {0};
    to_columns(from, 32, found);
    for (int v = 0; v < vectors_of(32); v++) {
        f32x16 w[32], sum = {0};
        for (int e = 0; e < 32; e++)
            sum += found[v].x[e] * found[v].x[e];
        sum = sum / 32.0f;
        for (int i = 0; i < LANES; i++)
            sum[i] = sqrtf(sum[i]);
        for (int e = 0; e < 32; e++)
            w[e] = sum + magnitude16(found[v].x[e]);
        search_with_minimum(&found[v], w, 32, limit, first, steps, false);
    }
    list_scales(found, 32, part, shift);
    put16(to, rounded_scales(part, 8, 63, s));
    put16(to + 2, rounded_scales(shift, 8, 63, m));
    memset(part, 0, sizeof part);
    memset(shift, 0, sizeof shift);
    for (int i = 0; i < 8; i++) {
        s[i] = s[i] < 63 ? s[i] : 63;
        m[i] = m[i] < 63 ? m[i] : 63;
        part[i] = s[i] * f16_at(to);
        shift[i] = m[i] * f16_at(to + 2);
    }
    for (int i = 0; i < 4; i++) {
        to[4 + i] = (uint8_t)(s[i] | s[4 + i] >> 4 << 6);
        to[8 + i] = (uint8_t)(m[i] | m[4 + i] >> 4 << 6);
        to[12 + i] = (uint8_t)((s[4 + i] & 15) | (m[4 + i] & 15) << 4);
    }
    final_levels(found, 32, part, shift, 0, limit, level);
}

static void pack_nibbles(const uint8_t *level, uint8_t *to)
{
    for (int part = 0; part < 4; part++)
        for (int i = 0; i < 32; i++)
            to[32 * part + i] = (uint8_t)((level[64 * part + i] & 15) | (level[64 * part + 32 + i] & 15) << 4);
}

void quantise_q4_k(const float *from, uint8_t *to)
{
    uint8_t level[256];
    with_six_bits(from, 15, -1.0f, 20, to, level);
    pack_nibbles(level, to + 16);
}

void quantise_q5_k(const float *from, uint8_t *to)
{
    uint8_t level[256];
    with_six_bits(from, 31, -0.5f, 15, to, level);
    pack_nibbles(level, to + 48);
    pack_bits(level, 4, to + 16);
}

void quantise_q6_k(const float *from, uint8_t *to)
{
    struct found found[VECTORS];
    uint8_t level[256];
    float part[16], scale[16], none[16] = {0}, largest = 0;
    to_columns(from, 16, found);
    for (int v = 0; v < vectors_of(16); v++)
        search_symmetric(&found[v], 32);
    list_scales(found, 16, scale, NULL);
    for (int i = 0; i < 16; i++)
        largest = fabsf(scale[i]) > fabsf(largest) ? scale[i] : largest;
    if (fabsf(largest) < 1e-15f) {
        memset(to, 0, 210);
        return;
    }
    float factor = -128.0f / largest;
    put16(to + 208, to_half(1.0f / factor));
    for (int i = 0; i < 16; i++) {
        int32_t s = nearest(factor * scale[i]);
        to[192 + i] = (uint8_t)(int8_t)(s < 127 ? s : 127);
        part[i] = (float)(int8_t)to[192 + i] * f16_at(to + 208);
    }
    final_levels(found, 16, part, none, -32, 31, level);
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 64; i++)
            to[64 * half + i] = (uint8_t)((level[128 * half + i] & 15) | (level[128 * half + 64 + i] & 15) << 4);
    pack_pairs(level, to + 128, 4);
}

void quantise_q8_k(const float *x, uint8_t *to)
{
    float largest = 0, d = 0;
    for (int i = 0; i < 256; i++)
        largest = fabsf(x[i]) > fabsf(largest) ? x[i] : largest;
    memset(to, 0, 292);
    if (largest == 0)
        return;
    float factor = -127.0f / largest;
    d = 1.0f / factor;
    memcpy(to, &d, 4);
    for (int i = 0; i < 256; i++) {
        int32_t q = nearest(factor * x[i]);
        to[4 + i] = (uint8_t)(int8_t)(q < 127 ? q : 127);
    }
    for (int i = 0; i < 16; i++) {
        int16_t sum = 0;
        for (int j = 0; j < 16; j++)
            sum = (int16_t)(sum + (int8_t)to[4 + 16 * i + j]);
        put16(to + 260 + 2 * i, (uint16_t)sum);
    }
}
