/* TRI and DIAG_MASK_*: each row keeps the elements of one part and gets a value in the other.

   A file defines FIRST(g, row) and END(g, row), between which the columns of a row are kept, and VALUE, and includes this. */
#include "elements.h"

static void cut_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const f32 *x = floats(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        int64_t begin = min64(FIRST(g, p.i1), n), end = min64(END(g, p.i1), n);
        for (int64_t i = 0; i < begin; i++)
            dst[i] = VALUE;
        if (begin < end)
            memmove(dst + begin, x + begin, (size_t)(4 * (end - begin)));
        for (int64_t i = max64(begin, end); i < n; i++)
            dst[i] = VALUE;
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, cut_rows, 0.3); }
