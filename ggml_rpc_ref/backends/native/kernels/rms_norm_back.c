/* RMS_NORM_BACK: the gradient of RMS_NORM; src0: that of its result, src1: what it was given. Both sums are rounded to float32. */
#include "rowwise.h"
#include "sums.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    float eps = rms_norm_back_eps(g);
    for (int64_t row = first; row < last; row++) {
        const float *grad = (const float *)row_of(&g->src[0], node->src[0], row);
        const float *a = (const float *)row_of(&g->src[1], node->src[1], row);
        float *dst = (float *)row_of(&g->dst, node->dst, row);
        float squares = (float)sum_of_squares(a, n), part = (float)sum_of_products(a, grad, n) / (squares + eps * (float)n);
        f32x16 scale = splat(1 / sqrtf(squares / (float)n + eps));
        MAP2(dst, grad, a, n, (x - y * part) * scale);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 0.8); }

KERNEL(rms_norm_back, GGML_OP_RMS_NORM_BACK, plan);
