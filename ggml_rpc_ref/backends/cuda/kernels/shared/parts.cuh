/* One number from a whole tensor: each block leaves what its threads found in scratch memory, and one block of the next kernel adds
   that up. The sum of the parts does not depend on which block was first, so it is the same each time. */
#pragma once
#include "kernel.cuh"

/* The sum of x over the block becomes its part. All threads come here. */
DEVICE void leave_part(const struct geometry *g, double x)
{
    __shared__ double part[MOST_WARPS];
    x = block_sum(x, part);
    if (threadIdx.x == 0)
        ((double *)g->scratch)[blockIdx.x] = x;
}

/* The sum of all parts, whose number is more[0]. All threads come here and get it. */
DEVICE double sum_of_parts(const struct geometry *g)
{
    __shared__ double part[MOST_WARPS];
    double x = 0;
    SHARE(i, g->more[0]) x += ((const double *)g->scratch)[i];
    return block_sum(x, part);
}
