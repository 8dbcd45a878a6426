/* RMS_NORM: dst = x / sqrt(mean(x^2) + eps), a block for each row; squares in float32, summed in double, as the oracle does. */
#include "kernel.cuh"

KERNEL(rms_norm)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        uint8_t *dst = at_place(&g.dst, p);
        double squares = 0;
        SHARE(i, n) {
            float v = f32_at(x + 4 * i);
            squares += v * v;
        }
        float mean = (float)(block_sum(squares, part) / n);
        float scale = 1.0f / sqrtf(mean + rms_norm_eps(&g));
        SHARE(i, n) *(float *)(dst + 4 * i) = f32_at(x + 4 * i) * scale;
    }
}
