/* ARGSORT: the places of each row's elements by rising (order 0) or falling value. */
#include "ranking.h"

static void sort_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    int32_t *own = (int32_t *)work->own;
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        memcpy(row_of(&g->dst, node->dst, row), ranked(x, n, argsort_order(g) == 1, own, own + n), (size_t)(4 * n));
    }
}

static bool plan(struct geometry *g) { return plan_ranking(g, sort_rows); }

KERNEL(argsort, GGML_OP_ARGSORT, plan);
