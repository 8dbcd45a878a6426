/* Rows of weights that are shared by warps: who has which, and how what each of them has summed becomes a result.

   A block has SHARING_WARPS warps; so many of them, one, two or four, have the same ROWS rows of weights. */
#pragma once
#include "kernel.cuh"

#define SHARING_WARPS 4

/* What a thread has to do. */
struct share {
    int64_t row;         /* the first of its rows of weights */
    int thread, threads; /* which it is of those that have them */
};

template <int ROWS> DEVICE struct share share_of(int warps)
{
    int threads = warps * WARP, group = threadIdx.x / threads;
    return {((int64_t)blockIdx.x * (SHARING_WARPS / warps) + group) * ROWS, (int)threadIdx.x % threads, threads};
}

/* Add what the threads of a share have; the first of them gets the sums. All threads of the block come here. */
template <int COUNT> DEVICE void add_shares(const struct share *mine, float *sum)
{
    __shared__ float part[SHARING_WARPS][COUNT];
#pragma unroll
    for (int n = 0; n < COUNT; n++)
        sum[n] = warp_sum(sum[n]);
    if (mine->threads == WARP)
        return;
    int warp = threadIdx.x / WARP;
    if (threadIdx.x % WARP == 0)
#pragma unroll
        for (int n = 0; n < COUNT; n++)
            part[warp][n] = sum[n];
    __syncthreads();
    if (mine->thread == 0)
        for (int other = warp + 1; other < warp + mine->threads / WARP; other++)
#pragma unroll
            for (int n = 0; n < COUNT; n++)
                sum[n] += part[other][n];
}
