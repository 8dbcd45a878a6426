/* SOFT_MAX_BACK: scale y (dy - sum of y dy), a block for each row. */
#include "kernel.cuh"

KERNEL(soft_max_back)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *dy = at_place(&g.src[0], p), *y = at_place(&g.src[1], p);
        uint8_t *dst = at_place(&g.dst, p);
        double products = 0;
        SHARE(i, n) products += f32_at(y + 4 * i) * f32_at(dy + 4 * i);
        float sum = (float)block_sum(products, part);
        SHARE(i, n) *(float *)(dst + 4 * i) = (f32_at(dy + 4 * i) - sum) * f32_at(y + 4 * i) * soft_max_back_scale(&g);
    }
}
