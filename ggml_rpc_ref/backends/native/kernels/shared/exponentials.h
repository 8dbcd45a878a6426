/* The exponentials of a row, less its largest element: what the softmax of a loss needs. F32, each in float32, sums in double. */
#pragma once
#include "elements.h"

/* NaN is passed over here, but not by the sum. -inf for no elements. */
static inline float largest_of(const f32 *x, int64_t n)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}
