/* REPEAT: copies of src0 side by side; elements keep their bytes. */
#include "copying.h"

static void repeat_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0], *to = &g->dst;
    int64_t size = type_size[to->type];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(to, row);
        uint8_t *dst = row_at(to, node->dst, p.i1, p.i2, p.i3);
        const uint8_t *src = repeated_row(from, node->src[0], p);
        for (int64_t i = 0; i < to->ne[0]; i += from->ne[0])
            move_elements(dst + i * size, size, src, size, from->ne[0], size);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, repeat_rows, g->src[0].ne[0] < 8 ? 3 : 0.5); }

KERNEL(repeat, GGML_OP_REPEAT, plan);
