/* ARGSORT and TOP_K: the places of a row's elements in the order of their values; equal ones keep theirs, NaN comes last. */
#pragma once
#include "elements.h"

/* Whether x comes before y for certain. */
static inline bool before(float x, float y, bool falling) { return (falling ? x > y : x < y) || (x == x && y != y); }

/* Merge sort of places; both arrays hold n. Returns the one that the result is in. */
static inline int32_t *ranked(const f32 *x, int64_t n, bool falling, int32_t *from, int32_t *to)
{
    for (int64_t i = 0; i < n; i++)
        from[i] = (int32_t)i;
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t begin = 0; begin < n; begin += 2 * width) {
            int64_t middle = min64(begin + width, n), end = min64(middle + width, n), a = begin, b = middle;
            for (int64_t i = begin; i < end; i++)
                to[i] = b == end || (a < middle && !before(x[from[b]], x[from[a]], falling)) ? from[a++] : from[b++];
        }
        int32_t *swapped = from;
        from = to;
        to = swapped;
    }
    return from;
}

/* Plan a kernel that ranks each row of src0. */
static inline bool plan_ranking(struct geometry *g, phase_function run)
{
    int64_t n = g->src[0].ne[0];
    g->own = 8 * n;
    add_phase(g, run, rows(&g->src[0]), 6.0 * n * (64 - __builtin_clzll((unsigned long long)n)));
    return true;
}
