/* CUMSUM: running sums along each row, each rounded to float32. */
#include "elements.h"

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        float sum = x[0];
        dst[0] = sum;
        for (int64_t i = 1; i < g->dst.ne[0]; i++)
            dst[i] = sum += x[i];
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, add_rows, 1.2); }

KERNEL(cumsum, GGML_OP_CUMSUM, plan);
