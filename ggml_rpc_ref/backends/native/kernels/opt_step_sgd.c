/* OPT_STEP_SGD: one step of stochastic gradient descent in place. src: weight, gradient, settings. */
#include "elements.h"
#include "rowwise.h"

static void step_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const f32 *settings = (const f32 *)node->src[2];
    float alpha = settings[0], keep = 1 - alpha * settings[1];
    for (int64_t row = first; row < last; row++) {
        float *w = (float *)row_of(&g->dst, node->dst, row);
        const float *gradient = (const float *)row_of(&g->src[1], node->src[1], row);
        MAP2(w, w, gradient, g->dst.ne[0], x * keep - alpha * y);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, step_rows, 1); }

KERNEL(opt_step_sgd, GGML_OP_OPT_STEP_SGD, plan);
