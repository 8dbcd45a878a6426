/* RMS_NORM_BACK: the gradient of RMS_NORM, a block for each row; both sums are rounded before they are used. */
#include "kernel.cuh"

KERNEL(rms_norm_back)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.dst.ne[0];
    float eps = rms_norm_back_eps(&g);
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *gradient = at_place(&g.src[0], p), *x = at_place(&g.src[1], p);
        uint8_t *dst = at_place(&g.dst, p);
        double squares = 0, products = 0;
        SHARE(i, n) {
            float v = f32_at(x + 4 * i);
            squares += v * v;
            products += v * f32_at(gradient + 4 * i);
        }
        float square = (float)block_sum(squares, part), product = (float)block_sum(products, part);
        float shift = product / (square + eps * (float)n), scale = 1.0f / sqrtf(square / (float)n + eps);
        SHARE(i, n) *(float *)(dst + 4 * i) = (f32_at(gradient + 4 * i) - f32_at(x + 4 * i) * shift) * scale;
    }
}
