/* SET_ROWS: rows of src0, rounded or quantised to dst's type, written where the indices in src1 say.

   Where an index occurs twice the later row stays, so a unit is a part of all rows of a matrix, from one column to another. */
#include "pieces.h"

#define COLUMNS PIECE

static int64_t parts(const struct geometry *g) { return (g->src[0].ne[0] + COLUMNS - 1) / COLUMNS; }

static int64_t index_of(const struct node *node, int64_t i, int64_t j, int64_t k)
{
    const struct layout *l = &node->of->src[1];
    return index_at(l->type, element(l, node->src[1], i, j % l->ne[1], k % l->ne[2], 0));
}

static void put_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *x = &g->src[0];
    float value[PIECE];
    for (int64_t unit = first; unit < last; unit++) {
        int64_t column = unit % parts(g) * COLUMNS, matrix = unit / parts(g);
        int64_t j = matrix % x->ne[2], k = matrix / x->ne[2], n = min64(COLUMNS, x->ne[0] - column);
        for (int64_t i = 0; i < x->ne[1]; i++) {
            int64_t index = index_of(node, i, j, k);
            if (!in_range(index, g->dst.ne[1], work))
                return;
            read_piece(x, row_at(x, node->src[0], i, j, k), column, n, value);
            write_piece(&g->dst, row_at(&g->dst, node->dst, index, j, k), column, n, value);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *x = &g->src[0];
    if (!is_float(x) || !can_quantise(g->dst.type) || !dense_rows(x) || !dense_rows(&g->dst))
        return false;
    add_phase(g, put_rows, parts(g) * x->ne[2] * x->ne[3], (double)COLUMNS * x->ne[1]);
    return true;
}

KERNEL(set_rows, GGML_OP_SET_ROWS, plan);
