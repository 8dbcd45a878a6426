/* DIAG: a square matrix with src0's row on its diagonal, zero elsewhere. */
#include "elements.h"

static void fill_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        uint8_t *dst = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        memset(dst, 0, (size_t)(4 * g->dst.ne[0]));
        memcpy(dst + 4 * p.i1, element(&g->src[0], node->src[0], p.i1, 0, p.i2, p.i3), 4);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, fill_rows, 0.3); }

KERNEL(diag, GGML_OP_DIAG, plan);
