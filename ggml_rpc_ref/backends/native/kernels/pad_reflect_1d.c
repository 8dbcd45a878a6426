/* PAD_REFLECT_1D: each row with its mirror image on both sides; the outermost element is not repeated. */
#include "elements.h"

static void pad_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t end = g->src[0].ne[0] - 1, p0 = pad_reflect_1d_p0(g), n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        const f32 *x = (const f32 *)row_of(&g->src[0], node->src[0], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < p0; i++)
            dst[i] = x[p0 - i <= end ? p0 - i : 2 * end - (p0 - i)];
        memcpy(dst + p0, x, (size_t)(4 * (end + 1)));
        for (int64_t i = p0 + end + 1; i < n; i++)
            dst[i] = x[2 * end - (i - p0)];
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, pad_rows, 1); }

KERNEL(pad_reflect_1d, GGML_OP_PAD_REFLECT_1D, plan);
