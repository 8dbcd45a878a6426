/* SOLVE_TRI: A X = B for a lower triangular A, by forward substitution. src0: A, src1: B.

   X is held in float32, sums in double precision. The columns of X don't depend on each other: a unit has some of one matrix. */
#include "elements.h"

#define COLUMNS 64

static int64_t blocks(const struct geometry *g) { return parts_of(g->dst.ne[0], COLUMNS); }

static void solve(const struct node *node, int64_t i2, int64_t i3, int64_t begin, int64_t end)
{
    const struct geometry *g = node->of;
    double sum[COLUMNS];
    for (int64_t i = 0; i < g->dst.ne[1]; i++) {
        const f32 *a = floats(&g->src[0], node->src[0], i, i2, i3), *b = floats(&g->src[1], node->src[1], i, i2, i3);
        f32 *x = floats(&g->dst, node->dst, i, i2, i3);
        memset(sum, 0, sizeof sum);
        for (int64_t t = 0; t < i; t++) {
            const f32 *known = floats(&g->dst, node->dst, t, i2, i3);
            double factor = a[t];
            for (int64_t j = begin; j < end; j++)
                sum[j - begin] += factor * known[j];
        }
        for (int64_t j = begin; j < end; j++)
            x[j] = (b[j] - (float)sum[j - begin]) / a[i];
    }
}

static void solve_columns(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t begin = unit % blocks(g) * COLUMNS, matrix = unit / blocks(g);
        solve(node, matrix % g->dst.ne[2], matrix / g->dst.ne[2], begin, min64(begin + COLUMNS, g->dst.ne[0]));
    }
}

static bool plan(struct geometry *g)
{
    double rows = g->dst.ne[1];
    add_phase(g, solve_columns, blocks(g) * g->dst.ne[2] * g->dst.ne[3], 0.4 * rows * rows * COLUMNS);
    return true;
}

KERNEL(solve_tri, GGML_OP_SOLVE_TRI, plan);
