/* L2_NORM: each row divided by its length, which is eps at the least. */
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
        float length = sqrtf((float)sum_of_squares(a, n));
        f32x16 scale = splat(1.0f / fmaxf(length, l2_norm_eps(g)));
        MAP1(dst, a, n, x * scale);
        scatter(&g->dst, dst, to);
    }
}

static bool plan(struct geometry *g) { return plan_gathered(g, norm_rows, 0.6); }

KERNEL(l2_norm, GGML_OP_L2_NORM, plan);
