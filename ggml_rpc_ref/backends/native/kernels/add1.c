/* ADD1: the one number of src1 added to every element of src0; any type that is written. */
#include "pieces.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float value[PIECE], number = float_at(g->src[1].type, node->src[1]);
    for (int64_t row = first; row < last; row++) {
        const uint8_t *from = row_of(&g->src[0], node->src[0], row);
        uint8_t *to = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], from, i, n, value);
            for (int64_t k = 0; k < n; k++)
                value[k] += number;
            write_piece(&g->dst, to, i, n, value);
        }
    }
}

static bool plan(struct geometry *g)
{
    return can_dequantise(g->src[0].type) && can_quantise(g->dst.type) && dense_rows(&g->src[0]) && dense_rows(&g->dst) &&
           plan_rows(g, compute_rows, type_block[g->dst.type] > 1 ? 4 : 0.5);
}

KERNEL(add1, GGML_OP_ADD1, plan);
