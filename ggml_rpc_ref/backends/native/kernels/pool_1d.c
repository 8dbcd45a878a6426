/* POOL_1D: the largest or the mean under a window that slides over each row; the mean is of the elements that are there. */
#include "pooling.h"

/* A row of results, tap by tap. */
static void pool_together(const struct windows *w, int kind, bool passes_nan, const f32 *x, int64_t outputs, f32 *dst)
{
    float result[POOLED_TOGETHER];
    for (int64_t o = 0; o < outputs; o += POOLED_TOGETHER) {
        int64_t n = min64(POOLED_TOGETHER, outputs - o);
        clear(kind, result, n);
        pool_row(kind, passes_nan, x, w, o, n, result);
        for (int64_t i = 0; i < n; i++) {
            int64_t covered = end_of(w, o + i) - begin_of(w, o + i);
            dst[o + i] = kind == POOL_MEAN && covered > 0 ? result[i] / (float)covered : result[i];
        }
    }
}

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
        if (pools_together(from, &w, g->dst.ne[0])) {
            pool_together(&w, kind, passes_nan, (const f32 *)x, g->dst.ne[0], dst);
            continue;
        }
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
