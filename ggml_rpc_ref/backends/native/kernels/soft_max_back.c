/* SOFT_MAX_BACK: dst = scale * y * (dy - sum of y * dy), row by row; src0: dy, src1: y. */
#include "elements.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    float scale = soft_max_back_scale(g);
    for (int64_t row = first; row < last; row++) {
        const f32 *dy = (const f32 *)row_of(&g->src[0], node->src[0], row), *y = (const f32 *)row_of(&g->src[1], node->src[1], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        double total = 0;
        for (int64_t i = 0; i < n; i++)
            total += y[i] * dy[i];
        float mean = (float)total;
        for (int64_t i = 0; i < n; i++)
            dst[i] = (dy[i] - mean) * y[i] * scale;
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 1.5); }

KERNEL(soft_max_back, GGML_OP_SOFT_MAX_BACK, plan);
