/* Sums of a row of F32 in double precision, in which no sum of floats overflows. */
#pragma once
#include "vector.h"

/* Two sums side by side, since an addition takes as long as several begin. */
#define SUM_OF(EXPRESSION)                           \
    doubles sums = {0}, others = {0};                \
    int64_t i = 0;                                   \
    for (; i + 2 * LANES <= n; i += LANES) {         \
        f32x16 v = load16(x + i);                    \
        sums += halves64(EXPRESSION);                \
        i += LANES;                                  \
        v = load16(x + i);                           \
        others += halves64(EXPRESSION);              \
    }                                                \
    for (; i + LANES <= n; i += LANES) {             \
        f32x16 v = load16(x + i);                    \
        sums += halves64(EXPRESSION);                \
    }                                                \
    double total = sum_doubles(sums + others);       \
    for (; i < n; i++) {                             \
        f32x16 v = load_some(x + i, 1);              \
        total += (EXPRESSION)[0];                    \
    }                                                \
    return total;

static inline double sum_of_row(const float *x, int64_t n) { SUM_OF(v) }

/* Each square in float32. */
static inline double sum_of_squares(const float *x, int64_t n) { SUM_OF(v * v) }

/* The squares of what exceeds the mean, each in float32. */
static inline double sum_of_squares_about(const float *x, int64_t n, float mean) { SUM_OF((v - mean) * (v - mean)) }

/* Each product in float32. */
static inline double sum_of_products(const float *x, const float *y, int64_t n) { SUM_OF(v * load_part(y + i, n - i)) }
