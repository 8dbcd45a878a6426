/* ARGSORT: the places of each row's elements by rising (order 0) or falling value.

   In some versions rows are sorted by exchanges, which move equal elements: each place takes every smaller element that follows. */
#include "ranking.h"

#define MOST_EXCHANGED 4096 /* elements of a row: a longer one would hold a run up, the oracle can be stopped in it */

/* Nothing is smaller than NaN: a place that holds one keeps it. */
static void exchange(const f32 *x, int64_t n, bool falling, int32_t *order)
{
    float sign = falling ? -1.0f : 1.0f;
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t place = 0; place < n; place++) {
        float least = sign * x[order[place]];
        for (int64_t i = place + 1; i < n; i++) {
            float value = sign * x[order[i]];
            if (value < least) {
                int32_t moved = order[place];
                order[place] = order[i];
                order[i] = moved;
                least = value;
            }
        }
    }
}

static void sort_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        i32 *dst = (i32 *)row_of(&g->dst, node->dst, row);
        if (has_change(g, CHANGE_ARGSORT_TIES)) {
            exchange(x, n, argsort_order(g) == 1, (int32_t *)work->own);
            memcpy(dst, work->own, (size_t)(4 * n));
            continue;
        }
        const rank *found = ranked(x, n, argsort_order(g) == 1, (rank *)work->own);
        for (int64_t i = 0; i < n; i++)
            dst[i] = place_in(found[i]);
    }
}

static bool plan(struct geometry *g)
{
    int64_t n = g->dst.ne[0];
    if (!has_change(g, CHANGE_ARGSORT_TIES))
        return plan_ranking(g, sort_rows);
    g->own = 8 * n;
    return n <= MOST_EXCHANGED && plan_rows(g, sort_rows, (double)n);
}

KERNEL(argsort, GGML_OP_ARGSORT, plan);
