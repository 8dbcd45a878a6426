/* TOP_K: the places of each row's k largest elements, by falling value, the first two exchanged as upstream does. */
#include "ranking.h"

static void pick_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->src[0].ne[0], k = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        const rank *found = k <= FEW ? first_ranked(x, n, k, (rank *)work->own) : ranked(x, n, true, (rank *)work->own);
        i32 *dst = (i32 *)row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < k; i++)
            dst[i] = place_in(found[k > 1 && i < 2 ? 1 - i : i]);
    }
}

static bool plan(struct geometry *g) { return plan_ranking(g, pick_rows); }

KERNEL(top_k, GGML_OP_TOP_K, plan);
