/* CONCAT: two tensors joined along a dimension; elements (or blocks) keep their bytes. */
#include "copying.h"

/* Elements or blocks of a row. */
static int64_t length(const struct layout *l) { return l->ne[0] / type_block[l->type]; }

static void join_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *a = &g->src[0], *b = &g->src[1], *to = &g->dst;
    int64_t size = type_size[to->type], dim = concat_dim(g);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(to, row);
        uint8_t *dst = row_at(to, node->dst, p.i1, p.i2, p.i3);
        if (dim == 0) {
            move_elements(dst, to->nb[0], row_at(a, node->src[0], p.i1, p.i2, p.i3), a->nb[0], length(a), size);
            dst += length(a) * to->nb[0];
            move_elements(dst, to->nb[0], row_at(b, node->src[1], p.i1, p.i2, p.i3), b->nb[0], length(b), size);
            continue;
        }
        int64_t at[4] = {0, p.i1, p.i2, p.i3};
        bool second = at[dim] >= a->ne[dim];
        at[dim] -= second ? a->ne[dim] : 0;
        const struct layout *from = second ? b : a;
        move_elements(dst, to->nb[0], row_at(from, node->src[second], at[1], at[2], at[3]), from->nb[0], length(to), size);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, join_rows, 0.5); }

KERNEL(concat, GGML_OP_CONCAT, plan);
