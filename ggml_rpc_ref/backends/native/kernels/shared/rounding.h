/* How upstream's quantisers round, cut and search; SPEC.md has the formulas. */
#pragma once
#include <math.h>

#include "half.h"
#include "vector.h"

static inline void put16(uint8_t *p, uint16_t x) { memcpy(p, &x, 2); }

/* C's cast as x86-64 does it: towards zero; -2^31 for NaN and what does not fit. */
static inline int32_t truncated(float x) { return fabsf(x) < 0x1p31f ? (int32_t)x : INT32_MIN; }

/* The result of an operation on numbers. Where there is none, as of infinity less infinity, x86-64 makes a NaN with its sign set and
   ARM one without; what becomes part of a block is x86-64's. */
static inline float made(float x) { return x == x ? x : as_float(0xFFC00000); }

/* 1 / x, and 0 for 0. */
static inline float inverse(float x) { return x != 0 ? 1.0f / x : 0; }

/* The first element of largest magnitude; 0 where there is none but NaN. */
static inline float largest(const float *x, int n)
{
    f32x16 most = splat(0);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 size = (f32x16)((i32x16)load16(x + i) & 0x7FFFFFFF);
        most = choose(size > most, size, most);
    }
    float magnitude = max16(most);
    for (; i < n; i++)
        magnitude = fabsf(x[i]) > magnitude ? fabsf(x[i]) : magnitude;
    for (i = 0; magnitude > 0 && i < n; i++)
        if (fabsf(x[i]) == magnitude)
            return x[i];
    return 0;
}
