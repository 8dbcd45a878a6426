/* SET_ROWS: rows of src0, rounded, cut or quantised to dst's type, written where the indices in src1 say.

   Where an index occurs twice the later row stays, so a unit is a part of all rows of a matrix, from one column to another. */
#include "pieces.h"
#include "rounding.h"

#define COLUMNS PIECE

static int64_t parts(const struct geometry *g) { return (g->src[0].ne[0] + COLUMNS - 1) / COLUMNS; }

static void put_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *x = &g->src[0], *l = &g->src[1];
    float value[PIECE];
    for (int64_t unit = first; unit < last; unit++) {
        int64_t column = unit % parts(g) * COLUMNS, matrix = unit / parts(g);
        int64_t j = matrix % x->ne[2], k = matrix / x->ne[2], n = min64(COLUMNS, x->ne[0] - column);
        const uint8_t *indices = element(l, node->src[1], 0, j % l->ne[1], k % l->ne[2], 0);
        for (int64_t i = 0; i < x->ne[1]; i++) {
            int64_t index = index_at(l->type, indices + i * l->nb[0]);
            if (!in_range(index, g->dst.ne[1], work))
                return;
            const uint8_t *row = row_at(x, node->src[0], i, j, k);
            const f32 *values = is_f32(x) ? (const f32 *)row + column : value;
            if (!is_f32(x))
                read_piece(x, row, column, n, value);
            uint8_t *to = row_at(&g->dst, node->dst, index, j, k);
            if (g->dst.type == GGML_TYPE_I32)
                for (int64_t c = 0; c < n; c++)
                    ((i32 *)to)[column + c] = truncated(values[c]);
            else
                write_piece(&g->dst, to, column, n, values);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *x = &g->src[0];
    if (!is_float(x) || (!can_quantise(g->dst.type) && g->dst.type != GGML_TYPE_I32) || !dense_rows(x) || !dense_rows(&g->dst))
        return false;
    add_phase(g, put_rows, parts(g) * x->ne[2] * x->ne[3], (double)COLUMNS * x->ne[1]);
    return true;
}

KERNEL(set_rows, GGML_OP_SET_ROWS, plan);
