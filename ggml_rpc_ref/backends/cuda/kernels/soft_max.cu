/* SOFT_MAX: dst = exp(w - max) / sum, w = scale * x + slope * mask; a sink adds its own exponent to the sum. A block for each row. */
#include "kernel.cuh"

KERNEL(soft_max)
{
    __shared__ double part[MOST_WARPS];
    const struct operand *mask = &g.src[1];
    int64_t n = g.dst.ne[0];
    float scale = soft_max_scale(&g);
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        const uint8_t *m = present(mask) ? at(mask, 0, p.i1, p.i2 % mask->ne[2], p.i3 % mask->ne[3]) : NULL;
        uint8_t *dst = at_place(&g.dst, p);
        float slope = slope_of(p.i2, g.dst.ne[2], soft_max_max_bias(&g)), top = -INFINITY;
        SHARE(i, n) {
            float w = f32_at(x + 4 * i) * scale;
            if (m)
                w += slope * load(mask->type, m + i * mask->nb[0]);
            *(float *)(dst + 4 * i) = w;
            top = larger(top, w);
        }
        top = block_max(top, part);
        float sink = present(&g.src[2]) ? f32_at(g.src[2].data + 4 * p.i2) : -INFINITY;
        top = larger(top, sink);
        double sum = 0;
        SHARE(i, n) {
            float e = expf(f32_at(dst + 4 * i) - top);
            *(float *)(dst + 4 * i) = e;
            sum += e;
        }
        sum = block_sum(sum, part) + (present(&g.src[2]) ? exp((double)sink - (double)top) : 0);
        float factor = (float)(1 / sum);
        SHARE(i, n) *(float *)(dst + 4 * i) *= factor;
    }
}
