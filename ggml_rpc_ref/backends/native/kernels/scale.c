/* SCALE: dst = src0 * scale + bias. A bias of 0 is not added, so that -0 stays -0. */
#include "rowwise.h"

static void scale_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    f32x16 scale = splat(scale_scale(g)), bias = splat(scale_bias(g));
    for (int64_t row = first; row < last; row++) {
        float *dst = (float *)row_of(&g->dst, node->dst, row);
        const float *a = (const float *)row_of(&g->src[0], node->src[0], row);
        if (scale_bias(g) == 0)
            MAP1(dst, a, g->dst.ne[0], x * scale);
        else
            MAP1(dst, a, g->dst.ne[0], fma16(x, scale, bias));
    }
}

static bool plan(struct geometry *g)
{
    return plain_f32(&g->dst) && plain_f32(&g->src[0]) && plan_rows(g, scale_rows, 0.2);
}

KERNEL(scale, GGML_OP_SCALE, plan);
