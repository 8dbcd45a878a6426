/* SET_ROWS: rows of src0, rounded or quantised to dst's type, written where the indices in src1 say.

   Where an index occurs twice the later row stays, so a unit is a part of all rows of a matrix, from one column to another. */
#include "quantise.h"

#define COLUMNS 256 /* a whole number of blocks of every type */

static int64_t parts(const struct geometry *g) { return (g->src[0].ne[0] + COLUMNS - 1) / COLUMNS; }

static int64_t index_at(const struct layout *l, const uint8_t *data, int64_t i, int64_t j, int64_t k)
{
    const uint8_t *p = data + i * l->nb[0] + j % l->ne[1] * l->nb[1] + k % l->ne[2] * l->nb[2];
    int64_t wide;
    int32_t narrow;
    if (l->type == GGML_TYPE_I64)
        return memcpy(&wide, p, sizeof wide), wide;
    return memcpy(&narrow, p, sizeof narrow), narrow;
}

static void put_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *x = &g->src[0];
    for (int64_t unit = first; unit < last; unit++) {
        int64_t column = unit % parts(g) * COLUMNS, matrix = unit / parts(g);
        int64_t j = matrix % x->ne[2], k = matrix / x->ne[2], n = min64(COLUMNS, x->ne[0] - column);
        for (int64_t i = 0; i < x->ne[1]; i++) {
            int64_t index = index_at(&g->src[1], node->src[1], i, j, k);
            if (index < 0 || index >= g->dst.ne[1]) {
                atomic_store(work->outcome, BAD_INDEX);
                return;
            }
            uint8_t *to = row_at(&g->dst, node->dst, index, j, k) + row_size(g->dst.type, column);
            quantise_row(g->dst.type, (const float *)row_at(x, node->src[0], i, j, k) + column, to, n);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *x = &g->src[0];
    if (!is_f32(x) || !can_quantise(g->dst.type) || !dense_rows(x) || !dense_rows(&g->dst))
        return false;
    add_phase(g, put_rows, parts(g) * x->ne[2] * x->ne[3], (double)COLUMNS * x->ne[1]);
    return true;
}

KERNEL(set_rows, GGML_OP_SET_ROWS, plan);
