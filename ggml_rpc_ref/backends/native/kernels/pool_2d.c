/* POOL_2D: the largest or the mean under a window that slides over each plane; the mean is of the whole window, padding and all. */
#include "pooling.h"

/* A row of results, window by window. */
static void pool_windows(const struct node *node, const struct windows *width, const struct windows *height, struct place p, f32 *dst)
{
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0];
    int kind = pool_2d_op(g);
    bool passes_nan = has_change(g, CHANGE_POOL_2D_NAN);
    for (int64_t o = 0; o < g->dst.ne[0]; o++) {
        float result = kind == POOL_MAX ? -FLT_MAX : 0;
        for (int64_t y = begin_of(height, p.i1); y < end_of(height, p.i1); y++)
            for (int64_t x = begin_of(width, o); x < end_of(width, o); x++) {
                float value = float_at(from->type, element(from, node->src[0], x, y, p.i2, p.i3));
                result = pooled(kind, passes_nan, result, value);
            }
        dst[o] = kind == POOL_MEAN ? result / (float)(width->kernel * height->kernel) : result;
    }
}

/* The same, tap by tap. */
static void pool_together(const struct node *node, const struct windows *width, const struct windows *height, struct place p, f32 *dst)
{
    const struct geometry *g = node->of;
    int kind = pool_2d_op(g);
    float result[POOLED_TOGETHER];
    for (int64_t o = 0; o < g->dst.ne[0]; o += POOLED_TOGETHER) {
        int64_t n = min64(POOLED_TOGETHER, g->dst.ne[0] - o);
        clear(kind, result, n);
        for (int64_t y = begin_of(height, p.i1); y < end_of(height, p.i1); y++)
            pool_row(kind, has_change(g, CHANGE_POOL_2D_NAN), floats(&g->src[0], node->src[0], y, p.i2, p.i3), width, o, n, result);
        for (int64_t i = 0; kind == POOL_MEAN && i < n; i++)
            result[i] /= (float)(width->kernel * height->kernel);
        memcpy(dst + o, result, (size_t)(4 * n));
    }
}

static void pool_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0];
    struct windows width = {from->ne[0], pool_2d_k0(g), pool_2d_s0(g), pool_2d_p0(g)};
    struct windows height = {from->ne[1], pool_2d_k1(g), pool_2d_s1(g), pool_2d_p1(g)};
    bool together = pools_together(from, &width, g->dst.ne[0]);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        (together ? pool_together : pool_windows)(node, &width, &height, p, dst);
    }
}

static bool plan(struct geometry *g)
{
    double taps = (double)min64(pool_2d_k0(g), g->src[0].ne[0]) * (double)min64(pool_2d_k1(g), g->src[0].ne[1]);
    return plan_rows(g, pool_rows, 1 + 1.5 * taps);
}

KERNEL(pool_2d, GGML_OP_POOL_2D, plan);
