/* SOFT_MAX_BACK: dst = scale * y * (dy - sum of y * dy), row by row; src0: dy, src1: y. */
#include "rowwise.h"
#include "sums.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    f32x16 scale = splat(soft_max_back_scale(g));
    for (int64_t row = first; row < last; row++) {
        const float *dy = (const float *)row_of(&g->src[0], node->src[0], row);
        const float *a = (const float *)row_of(&g->src[1], node->src[1], row);
        float *dst = (float *)row_of(&g->dst, node->dst, row), mean = (float)sum_of_products(a, dy, n);
        MAP2(dst, dy, a, n, (x - mean) * y * scale);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 0.6); }

KERNEL(soft_max_back, GGML_OP_SOFT_MAX_BACK, plan);
