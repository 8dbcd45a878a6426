/* NORM: each row shifted to mean 0 and scaled to variance 1. */
#include "gathered.h"
#include "rowwise.h"
#include "sums.h"

static void norm_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        uint8_t *to = row_of(&g->dst, node->dst, row);
        const float *a = gathered(&g->src[0], row_of(&g->src[0], node->src[0], row), (float *)work->own);
        float *dst = dense_rows(&g->dst) ? (float *)to : (float *)work->own;
        float mean = (float)sum_of_row(a, n) / (float)n, variance = (float)(sum_of_squares_about(a, n, mean) / (double)n);
        f32x16 scale = splat(1.0f / sqrtf(variance + norm_eps(g)));
        MAP1(dst, a, n, (x - mean) * scale);
        scatter(&g->dst, dst, to);
    }
}

static bool plan(struct geometry *g) { return plan_gathered(g, norm_rows, 0.8); }

KERNEL(norm, GGML_OP_NORM, plan);
