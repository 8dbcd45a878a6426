/* FILL: every element the same number, rounded to dst's type. */
#include "elements.h"

static void fill_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float number = fill_c(g);
    uint16_t half = to_half(number);
    int64_t n = g->dst.ne[0]; /* a store may change what is read by way of a pointer: the loops need it here */
    for (int64_t row = first; row < last; row++) {
        uint8_t *dst = row_of(&g->dst, node->dst, row);
        if (is_f32(&g->dst))
            for (int64_t i = 0; i < n; i++)
                ((f32 *)dst)[i] = number;
        else
            for (int64_t i = 0; i < n; i++)
                ((u16 *)dst)[i] = half;
    }
}

static bool plan(struct geometry *g) { return (is_f32(&g->dst) || is_f16(&g->dst)) && plan_rows(g, fill_rows, 0.3); }

KERNEL(fill, GGML_OP_FILL, plan);
