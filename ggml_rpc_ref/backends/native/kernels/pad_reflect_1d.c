/* PAD_REFLECT_1D: each row with its mirror image on both sides; the outermost element is not repeated. */
#include "elements.h"

static void pad_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t end = g->src[0].ne[0] - 1, p0 = pad_reflect_1d_p0(g);
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i++) {
            int64_t from = i < p0 ? p0 - i : i - p0;
            dst[i] = x[from <= end ? from : 2 * end - from];
        }
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, pad_rows, 1); }

KERNEL(pad_reflect_1d, GGML_OP_PAD_REFLECT_1D, plan);
