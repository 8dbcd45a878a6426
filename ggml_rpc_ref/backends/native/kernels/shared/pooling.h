/* POOL_1D, POOL_2D and POOL_2D_BACK: windows that slide over rows and planes. */
#pragma once
#include <float.h>

#include "elements.h"

enum { POOL_MAX = 0, POOL_MEAN = 1 };

/* Windows along an axis: the first begins `padding` before the input. */
struct windows {
    int64_t size, kernel, stride, padding;
};

/* The part of the input that a window covers: from begin to end. */
static inline int64_t begin_of(const struct windows *w, int64_t output) { return max64(0, output * w->stride - w->padding); }
static inline int64_t end_of(const struct windows *w, int64_t output)
{
    return min64(w->size, output * w->stride - w->padding + w->kernel);
}

/* A later element takes the place of the largest unless it is smaller; so NaN stands until the next one. In some versions it is
   passed over. */
static inline float pooled(int kind, bool passes_nan, float result, float x)
{
    if (kind == POOL_MEAN)
        return result + x;
    return x < result || (passes_nan && x != x) ? result : x;
}
