/* TOP_K: the places of each row's k largest elements, by falling value, the first two exchanged as upstream does. */
#include "ranking.h"

static void pick_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->src[0].ne[0], k = g->dst.ne[0];
    int32_t *own = (int32_t *)work->own;
    for (int64_t row = first; row < last; row++) {
        int32_t *found = ranked((const f32 *)row_of(&g->src[0], node->src[0], row), n, true, own, own + n);
        i32 *dst = (i32 *)row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < k; i++)
            dst[i] = found[k > 1 && i < 2 ? 1 - i : i];
    }
}

static bool plan(struct geometry *g) { return plan_ranking(g, pick_rows); }

KERNEL(top_k, GGML_OP_TOP_K, plan);
