/* WIN_UNPART: the windows of WIN_PART joined to an image again; what reached beyond it is cut off. */
#include "elements.h"

static void join_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t w = win_unpart_w(g), across = parts_of(g->dst.ne[1], w);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const uint8_t *x = row_at(&g->src[0], node->src[0], p.i1 % w, p.i2 % w, p.i2 / w * across + p.i1 / w);
        memcpy(row_at(&g->dst, node->dst, p.i1, p.i2, p.i3), x, (size_t)(4 * g->dst.ne[0]));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, join_rows, 0.5); }

KERNEL(win_unpart, GGML_OP_WIN_UNPART, plan);
