/* ADD_REL_POS: to scores over an image a term for each key's row and one for its column; only in the first stack of matrices. */
#include "elements.h"

/* Above the diagonal the row's term is added first, below it the column's: that decides the rounding. */
static void add_terms(f32 *dst, const f32 *x, const f32 *column, const f32 *row, int64_t n)
{
    for (int64_t kh = 0; kh < n; kh++)
        for (int64_t kw = 0; kw < n; kw++) {
            int64_t i = kh * n + kw;
            dst[i] = kh <= kw ? x[i] + row[kh] + column[kw] : x[i] + column[kw] + row[kh];
        }
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->src[1].ne[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        const f32 *x = add_rel_pos_inplace(g) ? dst : floats(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        int64_t query = (p.i2 * g->dst.ne[1] + p.i1) * n; /* both terms are contiguous */
        if (p.i3 == 0)
            add_terms(dst, x, (const f32 *)node->src[1] + query, (const f32 *)node->src[2] + query, n);
        else
            memmove(dst, x, (size_t)(4 * g->dst.ne[0]));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, add_rows, 1); }

KERNEL(add_rel_pos, GGML_OP_ADD_REL_POS, plan);
