/* REPEAT_BACK: the copies that REPEAT made added up, in float32, those along the fastest dimension first. */
#include "rowwise.h"

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0], *to = &g->dst;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(to, row);
        float *dst = (float *)row_at(to, node->dst, p.i1, p.i2, p.i3);
        memset(dst, 0, (size_t)(4 * to->ne[0]));
        for (int64_t i3 = p.i3; i3 < from->ne[3]; i3 += to->ne[3])
            for (int64_t i2 = p.i2; i2 < from->ne[2]; i2 += to->ne[2])
                for (int64_t i1 = p.i1; i1 < from->ne[1]; i1 += to->ne[1]) {
                    const float *a = (const float *)row_at(from, node->src[0], i1, i2, i3);
                    for (int64_t begin = 0; begin < from->ne[0]; begin += to->ne[0])
                        MAP2(dst, dst, a + begin, to->ne[0], x + y);
                }
    }
}

static bool plan(struct geometry *g)
{
    add_phase(g, add_rows, rows(&g->dst), (double)elements(&g->src[0]) / rows(&g->dst));
    return true;
}

KERNEL(repeat_back, GGML_OP_REPEAT_BACK, plan);
