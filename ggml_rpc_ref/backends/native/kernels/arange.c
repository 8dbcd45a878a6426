/* ARANGE: dst[i] = start + step * i, in double precision, rounded once. */
#include "elements.h"

static void fill_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    double start = arange_start(g), step = arange_step(g);
    for (int64_t row = first; row < last; row++) {
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            dst[i] = (float)(start + step * (double)(row * g->dst.ne[0] + i));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, fill_rows, 1); }

KERNEL(arange, GGML_OP_ARANGE, plan);
