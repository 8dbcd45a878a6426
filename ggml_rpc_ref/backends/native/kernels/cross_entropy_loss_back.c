/* CROSS_ENTROPY_LOSS_BACK: dst = (softmax of the logits - labels) * gradient / rows; src0: the gradient, src1: logits, src2: labels. */
#include "exponentials.h"
#include "rowwise.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    float share = *(const f32 *)node->src[0] / (float)rows(&g->dst);
    for (int64_t row = first; row < last; row++) {
        const float *logits = (const float *)row_of(&g->src[1], node->src[1], row);
        const float *labels = (const float *)row_of(&g->src[2], node->src[2], row);
        float *dst = (float *)row_of(&g->dst, node->dst, row), top = largest_of(logits, n);
        float factor = (float)(1 / sum_of_exponentials(logits, n, top));
        MAP2(dst, logits, labels, n, (exp16(x - top) * factor - y) * share);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 2); }

KERNEL(cross_entropy_loss_back, GGML_OP_CROSS_ENTROPY_LOSS_BACK, plan);
