/* CROSS_ENTROPY_LOSS_BACK: (softmax of src1 - src2) src0 / rows, a block for each row. */
#include "exponentials.cuh"

KERNEL(cross_entropy_loss_back)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[1], p), *wanted = at_place(&g.src[2], p);
        uint8_t *dst = at_place(&g.dst, p);
        struct exponentials e = exponentials_of(x, n, part);
        float factor = (float)(1 / e.sum), share = f32_at(g.src[0].data) / (float)rows_of(&g.src[1]);
        SHARE(i, n) *(float *)(dst + 4 * i) = (expf(f32_at(x + 4 * i) - e.top) * factor - f32_at(wanted + 4 * i)) * share;
    }
}
