/* The exponentials of a row, less its largest element: what SOFT_MAX and the softmax of a loss need. F32, each in float32, sums in double. */
#pragma once
#include "elements.h"
#include "vector.h"

/* NaN is passed over here, but not by the sum. -inf for no elements. */
static inline float largest_of(const f32 *x, int64_t n)
{
    f32x16 largest = splat(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 v = load16(x + i);
        largest = choose(v > largest, v, largest);
    }
    float top = max16(largest);
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

static inline double sum_of_exponentials(const float *x, int64_t n, float top)
{
    doubles sums = {0};
    for (; n >= LANES; n -= LANES, x += LANES)
        sums += halves64(exp16(load16(x) - top));
    double total = sum_doubles(sums);
    f32x16 e = exp16(load_some(x, n) - top);
    for (int64_t k = 0; k < n; k++)
        total += e[k];
    return total;
}
