/* POOL_1D, POOL_2D and POOL_2D_BACK: windows that slide over rows and planes. */
#pragma once
#include <float.h>

#include "elements.h"
#include "vector.h"

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

/* A tap of all windows of a row at a time, where windows are many and the row has no gaps: each output meets its taps in the same
   order as one by one. The compiler makes vectors of this for the usual strides. */
static inline __attribute__((always_inline)) void pool_some(int kind, bool passes_nan, const f32 *x, const int64_t stride, int64_t n,
                                                            float *restrict result)
{
    if (kind == POOL_MEAN)
        for (int64_t o = 0; o < n; o++)
            result[o] = pooled(POOL_MEAN, false, result[o], x[o * stride]);
    else if (passes_nan)
        for (int64_t o = 0; o < n; o++)
            result[o] = pooled(POOL_MAX, true, result[o], x[o * stride]);
    else
        for (int64_t o = 0; o < n; o++)
            result[o] = pooled(POOL_MAX, false, result[o], x[o * stride]);
}

#define POOLED_TOGETHER 256 /* outputs */

static inline bool pools_together(const struct layout *from, const struct windows *w, int64_t outputs)
{
    return is_f32(from) && dense_rows(from) && outputs >= 8 && w->kernel <= 64;
}

/* Let a row's taps meet the windows of outputs `first` to `first + n`. */
static inline void pool_row(int kind, bool passes_nan, const f32 *row, const struct windows *w, int64_t first, int64_t n,
                            float *result)
{
    for (int64_t tap = 0; tap < w->kernel; tap++) {
        int64_t shift = w->padding - tap; /* output * stride - shift is the input */
        int64_t begin = max64(first, shift > 0 ? parts_of(shift, w->stride) : 0);
        int64_t end = min64(first + n, w->size + shift > 0 ? parts_of(w->size + shift, w->stride) : 0);
        if (begin >= end)
            continue;
        const f32 *x = row + begin * w->stride - shift;
        if (w->stride == 1)
            pool_some(kind, passes_nan, x, 1, end - begin, result + begin - first);
        else if (w->stride == 2)
            pool_some(kind, passes_nan, x, 2, end - begin, result + begin - first);
        else
            pool_some(kind, passes_nan, x, w->stride, end - begin, result + begin - first);
    }
}

static inline void clear(int kind, float *result, int64_t n)
{
    for (int64_t o = 0; o < n; o++)
        result[o] = kind == POOL_MAX ? -FLT_MAX : 0;
}
