/* POOL_1D: the largest or the mean under a window that slides over each row; the mean is of the elements that are there. */
#include "pooling.h"

static void pool_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0];
    struct windows w = {from->ne[0], pool_1d_k0(g), pool_1d_s0(g), pool_1d_p0(g)};
    int kind = pool_1d_op(g);
    bool passes_nan = has_change(g, CHANGE_POOL_1D_NAN);
    for (int64_t row = first; row < last; row++) {
        const uint8_t *x = row_of(from, node->src[0], row);
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        for (int64_t o = 0; o < g->dst.ne[0]; o++) {
            float result = kind == POOL_MAX ? -FLT_MAX : 0;
            int64_t begin = begin_of(&w, o), end = end_of(&w, o);
            for (int64_t i = begin; i < end; i++)
                result = pooled(kind, passes_nan, result, float_at(from->type, x + i * type_size[from->type]));
            dst[o] = kind == POOL_MEAN && end > begin ? result / (float)(end - begin) : result;
        }
    }
}

static bool plan(struct geometry *g)
{
    return plan_rows(g, pool_rows, 1 + 1.5 * (double)min64(pool_1d_k0(g), g->src[0].ne[0]));
}

KERNEL(pool_1d, GGML_OP_POOL_1D, plan);
