/* GET_ROWS_BACK: rows of src0 added up where the indices in src1 say they came from; dst's other rows are 0.

   Rows are added in their order, which decides the rounding, so a unit is a part of all rows, from one column to another. What is 0
   is written before, row by row: memory is faster so. */
#include "elements.h"
#include "rowwise.h"

#define COLUMNS 256

static void clear_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    for (int64_t row = first; row < last; row++)
        memset(row_at(&node->of->dst, node->dst, row, 0, 0), 0, (size_t)(4 * node->of->dst.ne[0]));
}

static void add_columns(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0], *to = &g->dst;
    int64_t begin = first * COLUMNS, end = min64(last * COLUMNS, to->ne[0]), size = type_size[from->type];
    for (int64_t row = 0; row < g->src[1].ne[0]; row++) {
        int64_t index = ((const i32 *)node->src[1])[row];
        if (!in_range(index, to->ne[1], work))
            return;
        const uint8_t *values = row_at(from, node->src[0], row, 0, 0);
        f32 *dst = floats(to, node->dst, index, 0, 0);
        if (is_f32(from)) {
            float *sum = (float *)dst + begin;
            MAP2(sum, sum, (const float *)values + begin, end - begin, x + y);
            continue;
        }
        for (int64_t i = begin; i < end; i++)
            dst[i] += float_at(from->type, values + i * size);
    }
}

static bool plan(struct geometry *g)
{
    add_phase(g, clear_rows, g->dst.ne[1], g->dst.ne[0] * 0.1);
    add_phase(g, add_columns, parts_of(g->dst.ne[0], COLUMNS), COLUMNS * 0.3 * g->src[1].ne[0]);
    return true;
}

KERNEL(get_rows_back, GGML_OP_GET_ROWS_BACK, plan);
