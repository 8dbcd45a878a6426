/* SCALE: dst = src0 * scale + bias. A bias of 0 is not added, so that -0 stays -0. F32 where it lies, BF16 piece by piece. */
#include "pieces.h"
#include "rowwise.h"

static void scaled(const struct geometry *g, float *dst, const float *a, int64_t n)
{
    f32x16 scale = splat(scale_scale(g)), bias = splat(scale_bias(g));
    if (scale_bias(g) == 0)
        MAP1(dst, a, n, x * scale);
    else
        MAP1(dst, a, n, fma16(x, scale, bias));
}

static void scale_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++)
        scaled(g, (float *)row_of(&g->dst, node->dst, row), (const float *)row_of(&g->src[0], node->src[0], row), g->dst.ne[0]);
}

static void scale_pieces(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float value[PIECE];
    for (int64_t row = first; row < last; row++)
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], row_of(&g->src[0], node->src[0], row), i, n, value);
            scaled(g, value, value, n);
            write_piece(&g->dst, row_of(&g->dst, node->dst, row), i, n, value);
        }
}

static bool plan(struct geometry *g)
{
    if (plain_f32(&g->dst) && plain_f32(&g->src[0]))
        return plan_rows(g, scale_rows, 0.2);
    return is_float(&g->dst) && is_float(&g->src[0]) && dense_rows(&g->dst) && dense_rows(&g->src[0]) &&
           plan_rows(g, scale_pieces, 1);
}

KERNEL(scale, GGML_OP_SCALE, plan);
