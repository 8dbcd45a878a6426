/* FILL: every element the same number, rounded to dst's type. */
#include "elements.h"

static void fill_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float number = fill_c(g);
    uint16_t half = to_half(number);
    for (int64_t row = first; row < last; row++) {
        uint8_t *dst = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            if (is_f32(&g->dst))
                ((f32 *)dst)[i] = number;
            else
                ((u16 *)dst)[i] = half;
    }
}

static bool plan(struct geometry *g) { return (is_f32(&g->dst) || is_f16(&g->dst)) && plan_rows(g, fill_rows, 0.3); }

KERNEL(fill, GGML_OP_FILL, plan);
