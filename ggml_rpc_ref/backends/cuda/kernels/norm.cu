/* NORM: each row shifted to mean 0 and scaled to variance 1, a block for each row; differences from the rounded mean. */
#include "kernel.cuh"

KERNEL(norm)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        uint8_t *dst = at_place(&g.dst, p);
        double sum = 0, squares = 0;
        SHARE(i, n) sum += f32_at(x + i * g.src[0].nb[0]);
        float mean = (float)block_sum(sum, part) / (float)n;
        SHARE(i, n) {
            float y = f32_at(x + i * g.src[0].nb[0]) - mean;
            squares += y * y;
        }
        float variance = (float)(block_sum(squares, part) / n);
        float scale = 1.0f / sqrtf(variance + norm_eps(&g));
        SHARE(i, n) *(float *)(dst + i * g.dst.nb[0]) = (f32_at(x + i * g.src[0].nb[0]) - mean) * scale;
    }
}
