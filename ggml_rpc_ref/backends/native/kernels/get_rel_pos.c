/* GET_REL_POS: for each pair of query and key position the embedding of their distance; 16 bits are moved as they are. */
#include "elements.h"

static void pick_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const uint8_t *x = row_at(&g->src[0], node->src[0], p.i2 - p.i1 + g->dst.ne[1] - 1, 0, 0);
        memcpy(row_at(&g->dst, node->dst, p.i1, p.i2, p.i3), x, (size_t)(2 * g->dst.ne[0]));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, pick_rows, 0.3); }

KERNEL(get_rel_pos, GGML_OP_GET_REL_POS, plan);
