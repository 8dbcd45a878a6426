/* The largest of a row, and the sum of exp(x - largest), by all threads of a block; what the two kernels of CROSS_ENTROPY_LOSS need. */
#pragma once
#include "kernel.cuh"

struct exponentials {
    float top;
    double sum;
};

/* A NaN is never the largest, but its exponential is NaN, and so is the sum. */
DEVICE struct exponentials exponentials_of(const uint8_t *x, int64_t n, double *part)
{
    struct exponentials e = {-INFINITY, 0};
    SHARE(i, n) e.top = larger(e.top, f32_at(x + 4 * i));
    e.top = block_max(e.top, part);
    SHARE(i, n) e.sum += expf(f32_at(x + 4 * i) - e.top);
    e.sum = block_sum(e.sum, part);
    return e;
}
