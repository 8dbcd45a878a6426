/* ARGSORT: the places of each row's elements by rising (order 0) or falling value. */
#include "ranking.h"

static void sort_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        i32 *dst = (i32 *)row_of(&g->dst, node->dst, row);
        const rank *found = ranked(x, n, argsort_order(g) == 1, (rank *)work->own);
        for (int64_t i = 0; i < n; i++)
            dst[i] = place_in(found[i]);
    }
}

static bool plan(struct geometry *g) { return plan_ranking(g, sort_rows); }

KERNEL(argsort, GGML_OP_ARGSORT, plan);
