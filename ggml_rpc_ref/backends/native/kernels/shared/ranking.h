/* ARGSORT and TOP_K: the places of a row's elements in the order of their values; equal ones keep theirs, NaN comes last. */
#pragma once
#include "elements.h"
#include "vector.h"

/* An element as a number that is smaller than that of any element after it: its value above, its place below. */
typedef uint64_t rank;

static inline rank rank_of(float x, int64_t place, bool falling)
{
    uint32_t bits = as_bits(x + 0.0f); /* -0 equals 0 */
    uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)(x != x ? UINT32_MAX : falling ? ~rising : rising) << 32 | (uint32_t)place;
}

static inline void insertion_sort(rank *r, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        rank moved = r[i];
        int64_t j = i;
        for (; j > 0 && r[j - 1] > moved; j--)
            r[j] = r[j - 1];
        r[j] = moved;
    }
}

/* Sort by the upper 32 bits, eight at a time from the lowest, each pass keeping the order of the one before. Returns the array that
   the result is in. */
static inline rank *radix_sort(rank *from, rank *to, int64_t n)
{
    int32_t count[4][256];
    memset(count, 0, sizeof count);
    for (int64_t i = 0; i < n; i++)
        for (int digit = 0; digit < 4; digit++)
            count[digit][from[i] >> (32 + 8 * digit) & 255]++;
    for (int digit = 0; digit < 4; digit++) {
        int32_t *begin = count[digit], sum = 0;
        if (begin[from[0] >> (32 + 8 * digit) & 255] == n) /* all have the same */
            continue;
        for (int i = 0; i < 256; i++) {
            int32_t here = begin[i];
            begin[i] = sum;
            sum += here;
        }
        for (int64_t i = 0; i < n; i++)
            to[begin[from[i] >> (32 + 8 * digit) & 255]++] = from[i];
        rank *swapped = from;
        from = to;
        to = swapped;
    }
    return from;
}

/* The ranks of all elements in order; own: memory for 2 n of them. */
static inline rank *ranked(const f32 *x, int64_t n, bool falling, rank *own)
{
    for (int64_t i = 0; i < n; i++)
        own[i] = rank_of(x[i], i, falling);
    if (n > 48)
        return radix_sort(own, own + n, n);
    insertion_sort(own, n);
    return own;
}

#define FEW 64

/* Put a rank where it belongs among the first k, if it does; the last one is pushed out. */
static inline void push(rank *first, int64_t k, rank pushed)
{
    int64_t j = k - 1;
    if (pushed > first[j])
        return;
    for (; j > 0 && first[j - 1] > pushed; j--)
        first[j] = first[j - 1];
    first[j] = pushed;
}

/* The first k in falling order, k at most FEW and n. Vectors with nothing above the last of them are passed over, once that is a
   number: equal elements come after it. */
static inline rank *first_ranked(const f32 *x, int64_t n, int64_t k, rank *own)
{
    for (int64_t i = 0; i < k; i++)
        own[i] = rank_of(x[i], i, true);
    insertion_sort(own, k);
    for (int64_t i = k; i < n; i += LANES) {
        float last = x[(uint32_t)own[k - 1]];
        if (last == last && i + LANES <= n && !any(load16(x + i) > splat(last)))
            continue;
        for (int64_t j = i; j < i + LANES && j < n; j++)
            push(own, k, rank_of(x[j], j, true));
    }
    return own;
}

static inline int32_t place_in(rank r) { return (int32_t)(uint32_t)r; }

/* Plan a kernel that ranks each row of src0. */
static inline bool plan_ranking(struct geometry *g, phase_function run)
{
    int64_t n = g->src[0].ne[0];
    g->own = 2 * n * (int64_t)sizeof(rank);
    add_phase(g, run, rows(&g->src[0]), 12.0 * n + 500);
    return true;
}
