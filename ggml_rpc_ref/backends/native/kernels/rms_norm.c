/* RMS_NORM: dst = x / sqrt(mean(x^2) + eps), row by row; the squares are summed in double precision, as the oracle does. */
#include "rowwise.h"
#include "sums.h"

static void norm_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        float *dst = (float *)row_of(&g->dst, node->dst, row);
        const float *a = (const float *)row_of(&g->src[0], node->src[0], row);
        float mean = (float)(sum_of_squares(a, n) / n);
        f32x16 scale = splat(1.0f / sqrtf(mean + rms_norm_eps(g)));
        MAP1(dst, a, n, x * scale);
    }
}

static bool plan(struct geometry *g)
{
    return plain_f32(&g->dst) && plain_f32(&g->src[0]) && plan_rows(g, norm_rows, 0.4);
}

KERNEL(rms_norm, GGML_OP_RMS_NORM, plan);
