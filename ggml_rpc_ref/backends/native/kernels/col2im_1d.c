/* COL2IM_1D: columns added up to a signal, in float32, in their order; rounded once to dst's type. */
#include "pieces.h"

static float added(const struct node *node, int64_t channel, int64_t t)
{
    const struct geometry *g = node->of;
    const struct layout *columns = &g->src[0];
    int64_t stride = col2im_1d_s0(g), taps = columns->ne[0] / g->dst.ne[1], at = t + col2im_1d_p0(g);
    int64_t first = at < taps ? 0 : (at - taps) / stride + 1, last = min64(at / stride, columns->ne[1] - 1);
    float sum = 0;
    for (int64_t column = first; column <= last; column++)
        sum += float_at(columns->type, element(columns, node->src[0], channel * taps + at - column * stride, column, 0, 0));
    return sum;
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *dst = &node->of->dst;
    float value[PIECE];
    for (int64_t row = first; row < last; row++)
        for (int64_t i = 0; i < dst->ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, dst->ne[0] - i);
            for (int64_t k = 0; k < n; k++)
                value[k] = added(node, row, i + k);
            write_piece(dst, row_at(dst, node->dst, row, 0, 0), i, n, value);
        }
}

static bool plan(struct geometry *g)
{
    return plan_rows(g, add_rows, 3.0 * (1 + g->src[0].ne[0] / g->dst.ne[1] / col2im_1d_s0(g)));
}

KERNEL(col2im_1d, GGML_OP_COL2IM_1D, plan);
