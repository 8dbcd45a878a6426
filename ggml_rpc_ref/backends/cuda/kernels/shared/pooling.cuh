/* POOL_1D, POOL_2D and POOL_2D_BACK: windows that slide along an axis, and the largest or the mean of what is under them. */
#pragma once
#include "kernel.cuh"

enum { POOL_MAX = 0, POOL_MEAN = 1 };

#define LOWEST (-0x1.fffffep127f) /* where the search for the largest begins */

struct windows {
    int64_t size, kernel, stride, padding;
};

/* Where a window begins and ends within the input. */
DEVICE int64_t begin_of(const struct windows *w, int64_t output) { return max64(0, output * w->stride - w->padding); }
DEVICE int64_t end_of(const struct windows *w, int64_t output)
{
    return min64(w->size, output * w->stride - w->padding + w->kernel);
}

/* The first and the last window that an element is under. */
DEVICE int64_t first_over(const struct windows *w, int64_t index)
{
    int64_t beyond = index + w->padding - w->kernel; /* a window that begins here ends just before the element */
    return beyond < 0 ? 0 : beyond / w->stride + 1;
}
DEVICE int64_t last_over(const struct windows *w, int64_t index, int64_t outputs)
{
    int64_t begin = index + w->padding;
    return begin < 0 ? -1 : min64(outputs - 1, begin / w->stride);
}

/* What a window's result becomes with one more element: any later element replaces a NaN, or in some versions NaN is passed over. */
DEVICE float pooled(int kind, bool passes_nan, float result, float x)
{
    if (kind == POOL_MEAN)
        return result + x;
    return x < result || (passes_nan && isnan(x)) ? result : x;
}
