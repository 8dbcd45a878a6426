/* ADD_ID: to each row of src0 the row of src1 that an index in src2 picks. */
#include "elements.h"
#include "rowwise.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        int64_t index = *(const i32 *)element(&g->src[2], node->src[2], p.i1, p.i2, 0, 0);
        if (!in_range(index, g->src[1].ne[1], work))
            return;
        const float *a = (const float *)row_at(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        const float *b = (const float *)row_at(&g->src[1], node->src[1], index, 0, 0);
        float *dst = (float *)row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        MAP2(dst, a, b, g->dst.ne[0], x + y);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, compute_rows, 0.5); }

KERNEL(add_id, GGML_OP_ADD_ID, plan);
