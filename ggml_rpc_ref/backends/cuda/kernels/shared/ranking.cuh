/* ARGSORT and TOP_K: the places of a row's elements in the order of their values; equal ones keep theirs, NaN comes last.

   A block for each row. Its ranks lie in scratch memory, as many as the next power of two, and are sorted by a bitonic network: in
   each pass every place is compared with one other, and all passes are the same whatever the values are. */
#pragma once
#include "kernel.cuh"

/* An element as a number that is smaller than that of any element after it: its value above, its place below. */
typedef unsigned long long rank;

#define BEYOND (~(rank)0) /* behind the end of the row */

DEVICE rank rank_of(float x, int64_t place, bool falling)
{
    uint32_t bits = as_bits(x + 0.0f); /* -0 equals 0 */
    uint32_t rising = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (rank)(isnan(x) ? 0xffffffffu : falling ? ~rising : rising) << 32 | (uint32_t)place;
}

/* Sort a row; returns its ranks in order. more[0]: how many there are, a power of two. */
DEVICE const rank *ranked(const struct geometry *g, const uint8_t *x, bool falling)
{
    int64_t n = g->src[0].ne[0], size = g->more[0];
    rank *r = (rank *)g->scratch + blockIdx.x * size;
    __syncthreads(); /* the ranks of the row before have been read */
    SHARE(i, size) r[i] = i < n ? rank_of(f32_at(x + 4 * i), i, falling) : BEYOND;
    for (int64_t length = 2; length <= size; length *= 2)
        for (int64_t step = length / 2; step; step /= 2) {
            __syncthreads();
            SHARE(i, size) {
                int64_t other = i ^ step;
                if (other > i && (r[i] > r[other]) == !(i & length)) {
                    rank moved = r[i];
                    r[i] = r[other];
                    r[other] = moved;
                }
            }
        }
    __syncthreads();
    return r;
}

DEVICE int32_t place_in_row(rank r) { return (int32_t)(uint32_t)r; }
