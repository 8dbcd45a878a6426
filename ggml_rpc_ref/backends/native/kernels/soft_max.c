/* SOFT_MAX: dst = exp(w - max) / sum, w = scale * x + slope * mask; a sink adds its own exponent to the sum. */
#include "attention.h"
#include "exponentials.h"
#include "half.h"
#include "rowwise.h"

/* dst = scale * a + slope * mask; returns the largest. dst may be a. */
static float weigh(f32 *dst, const f32 *a, int64_t n, float scale, const uint8_t *mask, int32_t mask_type, float slope)
{
    if (!mask) {
        MAP1(dst, a, n, x * scale);
    } else if (mask_type == GGML_TYPE_F32) {
        const float *m = (const float *)mask;
        MAP2(dst, a, m, n, x * scale + y * slope);
    } else {
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES)
            store16(dst + i, load16(a + i) * scale + load_f16(mask + 2 * i) * slope);
        for (; i < n; i++) {
            uint16_t half;
            memcpy(&half, mask + 2 * i, 2);
            dst[i] = a[i] * scale + slope * from_half(half);
        }
    }
    return largest_of(dst, n);
}

/* dst = exp(dst - top); returns the sum, in double precision. */
static double exponentiate(float *dst, int64_t n, float top)
{
    doubles sums = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 e = exp16(load16(dst + i) - top);
        store16(dst + i, e);
        sums += halves64(e);
    }
    double total = sum_doubles(sums);
    if (i < n) {
        f32x16 e = exp16(load_some(dst + i, n - i) - top);
        store_some(dst + i, e, n - i);
        for (int64_t k = 0; k < n - i; k++)
            total += e[k];
    }
    return total;
}

static void soft_max_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *mask = &g->src[1];
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        float *dst = (float *)row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        const float *x = (const float *)row_at(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        const uint8_t *m = present(mask) ? row_at(mask, node->src[1], p.i1, p.i2 % mask->ne[2], p.i3 % mask->ne[3]) : NULL;
        float slope = slope_of(p.i2, g->dst.ne[2], soft_max_max_bias(g));
        float top = weigh(dst, x, n, soft_max_scale(g), m, mask->type, slope);
        float sink = 0;
        if (present(&g->src[2])) {
            memcpy(&sink, node->src[2] + 4 * p.i2, sizeof sink);
            top = sink > top ? sink : top;
        }
        double total = exponentiate(dst, n, top) + (present(&g->src[2]) ? exp((double)sink - (double)top) : 0);
        f32x16 factor = splat((float)(1 / total));
        MAP1(dst, dst, n, x * factor);
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *mask = &g->src[1];
    if (present(mask) && !dense_rows(mask))
        return false;
    return plain_f32(&g->dst) && plain_f32(&g->src[0]) && plan_rows(g, soft_max_rows, 1.5);
}

KERNEL(soft_max, GGML_OP_SOFT_MAX, plan);
