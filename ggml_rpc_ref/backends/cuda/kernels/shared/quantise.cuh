/* A block of floats to a block of a type, as upstream rounds: blocks/legacy.py has the same in numpy, SPEC.md the formulas. */
#pragma once
#include "kernel.cuh"

/* 1 / x, and 0 for 0. */
DEVICE float inverse(float x) { return x != 0 ? 1.0f / x : 0; }

/* The first element of largest magnitude; 0 where there is none but NaN. */
DEVICE float largest_of(const float *x, int n)
{
    float magnitude = 0, found = 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > magnitude) {
            magnitude = fabsf(x[i]);
            found = x[i];
        }
    return found;
}

DEVICE void extremes(const float *x, int n, float *low, float *high)
{
    *low = 0x1.fffffep127f;
    *high = -0x1.fffffep127f;
    for (int i = 0; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

DEVICE void put16(uint8_t *p, uint16_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

/* The low byte of (x * factor + shift) cut to an integer, at most `most` as a signed byte. */
DEVICE uint8_t level(float x, float factor, float shift, int most)
{
    int8_t q = (int8_t)truncated(x * factor + shift);
    return (uint8_t)(q < most ? q : most);
}

/* Five bits of each: the high ones of all, then the low four by pairs. */
DEVICE void put_fives(const uint8_t *levels, uint8_t *high, uint8_t *low)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(levels[i] >> 4 & 1) << i;
    for (int i = 0; i < 4; i++)
        high[i] = (uint8_t)(bits >> 8 * i);
    for (int i = 0; i < 16; i++)
        low[i] = (uint8_t)((levels[i] & 15) | (levels[16 + i] & 15) << 4);
}

/* Q4_0 and Q5_0: the element of largest magnitude becomes the lowest level. */
DEVICE void quantise_symmetric(const float *x, uint8_t *to, int bits)
{
    int half = 1 << (bits - 1);
    float d = largest_of(x, 32) / -half, factor = inverse(d);
    uint8_t levels[32];
    put16(to, to_half(d));
    for (int i = 0; i < 32; i++)
        levels[i] = level(x[i], factor, half + 0.5f, 2 * half - 1);
    if (bits == 5)
        put_fives(levels, to + 2, to + 6);
    else
        for (int i = 0; i < 16; i++)
            to[2 + i] = (uint8_t)(levels[i] | levels[16 + i] << 4);
}

/* Q4_1 and Q5_1: from the smallest to the largest. Five-bit levels are cut without a limit, unlike four-bit ones. */
DEVICE void quantise_range(const float *x, uint8_t *to, int bits)
{
    float low, high;
    extremes(x, 32, &low, &high);
    float d = (high - low) / ((1 << bits) - 1), factor = inverse(d);
    uint8_t levels[32];
    put16(to, to_half(d));
    put16(to + 2, to_half(low));
    for (int i = 0; i < 32; i++)
        levels[i] = bits == 5 ? (uint8_t)truncated((x[i] - low) * factor + 0.5f) : level(x[i] - low, factor, 0.5f, 15);
    if (bits == 5)
        put_fives(levels, to + 4, to + 8);
    else
        for (int i = 0; i < 16; i++)
            to[4 + i] = (uint8_t)(levels[i] | levels[16 + i] << 4);
}

/* What MAXPS does: the second operand unless the first is greater. */
DEVICE float maxps(float a, float b) { return a > b ? a : b; }

/* The largest magnitude in the order of upstream's AVX routine, which decides what a NaN does to it. */
DEVICE float avx_largest(const float *x)
{
    float m[8];
    for (int i = 0; i < 8; i++)
        m[i] = maxps(maxps(maxps(fabsf(x[i]), fabsf(x[8 + i])), fabsf(x[16 + i])), fabsf(x[24 + i]));
    for (int i = 0; i < 4; i++)
        m[i] = maxps(m[4 + i], m[i]);
    return maxps(maxps(m[0], m[2]), maxps(m[1], m[3]));
}

/* Q8_0 and, with the sum of the levels, Q8_1. */
DEVICE void quantise_bytes(const float *x, uint8_t *to, bool with_sum)
{
    float most = avx_largest(x), factor = most != 0 ? 127.0f / most : 0, d = most / 127.0f;
    uint32_t sum = 0; /* wraps */
    uint8_t *levels = to + (with_sum ? 4 : 2);
    for (int i = 0; i < 32; i++) {
        int32_t q = truncated(rintf(x[i] * factor));
        sum += (uint32_t)q;
        levels[i] = (uint8_t)(int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
    }
    put16(to, to_half(d));
    if (with_sum)
        put16(to + 2, to_half(d * (float)(int32_t)sum));
}

#define MOST_QUANTISED 32 /* elements of the blocks that are written here */

/* One block of a type, or one number of a plain one. */
DEVICE void quantise_block(int32_t type, const float *x, uint8_t *to)
{
    switch (type) {
    case GGML_TYPE_Q4_0: quantise_symmetric(x, to, 4); break;
    case GGML_TYPE_Q5_0: quantise_symmetric(x, to, 5); break;
    case GGML_TYPE_Q4_1: quantise_range(x, to, 4); break;
    case GGML_TYPE_Q5_1: quantise_range(x, to, 5); break;
    case GGML_TYPE_Q8_0: quantise_bytes(x, to, false); break;
    case GGML_TYPE_Q8_1: quantise_bytes(x, to, true); break;
    default: store(type, to, *x);
    }
}
