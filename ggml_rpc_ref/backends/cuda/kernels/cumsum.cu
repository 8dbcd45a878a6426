/* CUMSUM: running sums along each row. A thread for each row: every sum is rounded before the next element is added. */
#include "kernel.cuh"

KERNEL(cumsum)
{
    EACH(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        uint8_t *dst = at_place(&g.dst, p);
        float sum = 0;
        for (int64_t i = 0; i < g.dst.ne[0]; i++) {
            sum = i ? sum + f32_at(x + 4 * i) : f32_at(x); /* 0 + -0 would be 0 */
            *(float *)(dst + 4 * i) = sum;
        }
    }
}
