/* ADD, SUB, MUL, DIV: two operands, the second repeated to the dimensions of the first.

   A file defines ARITHMETIC(x, y) and includes this. In float32, rounded once to dst's type. Where src1's rows have length 1 or are
   shorter than dst's, each row is repeated along its length too. F32 whose rows have no gaps is computed where it lies; any other
   type, and a src1 with gaps, piece by piece. */
#include "pieces.h"
#include "rowwise.h"

static void repeat_along(float *dst, const float *a, const f32 *b, int64_t n, int64_t length)
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
        repeat_along(dst, a, (const f32 *)repeated_row(&g->src[1], node->src[1], p), g->dst.ne[0], g->src[1].ne[0]);
    }
}

/* n elements of a row of src1, which is repeated along dst's, from the one with number i on. */
static void read_repeated(const struct layout *l, const uint8_t *row, int64_t i, int64_t n, float *value)
{
    for (int64_t k = 0, at = i % l->ne[0]; k < n; k++, at = at + 1 == l->ne[0] ? 0 : at + 1)
        value[k] = float_at(l->type, row + at * l->nb[0]);
}

static void compute_pieces(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float a[PIECE], b[PIECE];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const uint8_t *one = row_at(&g->src[0], node->src[0], p.i1, p.i2, p.i3), *other = repeated_row(&g->src[1], node->src[1], p);
        uint8_t *to = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], one, i, n, a);
            read_repeated(&g->src[1], other, i, n, b);
            MAP2(a, a, b, n, ARITHMETIC(x, y));
            write_piece(&g->dst, to, i, n, a);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *a = &g->src[0], *b = &g->src[1];
    if (plain_f32(&g->dst) && plain_f32(a) && plain_f32(b))
        return plan_rows(g, compute_rows, 0.3);
    return can_dequantise(a->type) && dense_rows(a) && is_float(b) && can_quantise(g->dst.type) && dense_rows(&g->dst) &&
           plan_rows(g, compute_pieces, 3);
}
