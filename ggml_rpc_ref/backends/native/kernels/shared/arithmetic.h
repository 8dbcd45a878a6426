/* ADD, SUB, MUL, DIV: two operands, the second repeated to the dimensions of the first.

   A file defines ARITHMETIC(x, y) and includes this. F32 only; where src1's rows have length 1 or are shorter than dst's, each
   row is repeated along its length too. */
#include "rowwise.h"

static void repeat_along(float *dst, const float *a, const float *b, int64_t n, int64_t length)
{
    if (length == n) {
        MAP2(dst, a, b, n, ARITHMETIC(x, y));
    } else if (length == 1) {
        f32x16 y = splat(*b);
        MAP1(dst, a, n, ARITHMETIC(x, y));
    } else {
        for (int64_t i = 0; i < n; i += length)
            MAP2(dst + i, a + i, b, length, ARITHMETIC(x, y));
    }
}

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        float *dst = (float *)row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        const float *a = (const float *)row_at(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        repeat_along(dst, a, (const float *)repeated_row(&g->src[1], node->src[1], p), g->dst.ne[0], g->src[1].ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    bool plain = plain_f32(&g->dst) && plain_f32(&g->src[0]) && plain_f32(&g->src[1]);
    return plain && plan_rows(g, compute_rows, 0.3);
}
