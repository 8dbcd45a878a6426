/* Sums of a row of F32 in double precision, in which no sum of floats overflows. */
#pragma once
#include "vector.h"

#define SUM_OF(EXPRESSION)                       \
    doubles sums = {0};                          \
    int64_t i = 0;                               \
    for (; i + LANES <= n; i += LANES) {         \
        f32x16 v = load16(x + i);                \
        sums += halves64(EXPRESSION);            \
    }                                            \
    double total = sum_doubles(sums);            \
    for (; i < n; i++) {                         \
        f32x16 v = load_some(x + i, 1);          \
        total += (EXPRESSION)[0];                \
    }                                            \
    return total;

static inline double sum_of_row(const float *x, int64_t n) { SUM_OF(v) }

/* Each square in float32. */
static inline double sum_of_squares(const float *x, int64_t n) { SUM_OF(v * v) }

/* The squares of what exceeds the mean, each in float32. */
static inline double sum_of_squares_about(const float *x, int64_t n, float mean) { SUM_OF((v - mean) * (v - mean)) }
