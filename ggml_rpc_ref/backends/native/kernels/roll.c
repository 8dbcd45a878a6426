/* ROLL: all elements moved along each dimension; those that leave at one end come in at the other. */
#include "elements.h"

static void roll_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0];
    int64_t n = g->dst.ne[0], shift = modulo(roll_shift(g, 0), n);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const f32 *x = floats(from, node->src[0], modulo(p.i1 - roll_shift(g, 1), from->ne[1]),
                              modulo(p.i2 - roll_shift(g, 2), from->ne[2]), modulo(p.i3 - roll_shift(g, 3), from->ne[3]));
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        memcpy(dst, x + n - shift, (size_t)(4 * shift));
        memcpy(dst + shift, x, (size_t)(4 * (n - shift)));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, roll_rows, 0.5); }

KERNEL(roll, GGML_OP_ROLL, plan);
