/* L2_NORM: each row divided by its length, which is at least eps; a block for each row. Squares overflow in float32. */
#include "kernel.cuh"

KERNEL(l2_norm)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        uint8_t *dst = at_place(&g.dst, p);
        double squares = 0;
        SHARE(i, n) {
            float v = f32_at(x + i * g.src[0].nb[0]);
            squares += v * v;
        }
        float scale = 1.0f / fmaxf(sqrtf((float)block_sum(squares, part)), l2_norm_eps(&g)); /* fmaxf: a NaN counts for nothing */
        SHARE(i, n) *(float *)(dst + i * g.dst.nb[0]) = f32_at(x + i * g.src[0].nb[0]) * scale;
    }
}
