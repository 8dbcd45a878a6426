/* CROSS_ENTROPY_LOSS_BACK: dst = (softmax of the logits - labels) * gradient / rows; src0: the gradient, src1: logits, src2: labels. */
#include "exponentials.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    float share = *(const f32 *)node->src[0] / (float)rows(&g->dst);
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[1], node->src[1], row), *labels = (const f32 *)row_of(&g->src[2], node->src[2], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        float top = largest_of(x, n);
        double total = 0;
        for (int64_t i = 0; i < n; i++)
            total += expf(x[i] - top);
        float factor = (float)(1 / total);
        for (int64_t i = 0; i < n; i++)
            dst[i] = (expf(x[i] - top) * factor - labels[i]) * share;
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 8); }

KERNEL(cross_entropy_loss_back, GGML_OP_CROSS_ENTROPY_LOSS_BACK, plan);
