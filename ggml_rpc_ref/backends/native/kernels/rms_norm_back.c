/* RMS_NORM_BACK: the gradient of RMS_NORM; src0: that of its result, src1: what it was given. Both sums are rounded to float32. */
#include "elements.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    float eps = rms_norm_back_eps(g);
    for (int64_t row = first; row < last; row++) {
        const f32 *grad = (const f32 *)row_of(&g->src[0], node->src[0], row), *x = (const f32 *)row_of(&g->src[1], node->src[1], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        double sum_of_squares = 0, sum_of_products = 0;
        for (int64_t i = 0; i < n; i++) {
            sum_of_squares += x[i] * x[i];
            sum_of_products += x[i] * grad[i];
        }
        float squares = (float)sum_of_squares, part = (float)sum_of_products / (squares + eps * (float)n);
        float scale = 1 / sqrtf(squares / (float)n + eps);
        for (int64_t i = 0; i < n; i++)
            dst[i] = (grad[i] - x[i] * part) * scale;
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 2); }

KERNEL(rms_norm_back, GGML_OP_RMS_NORM_BACK, plan);
