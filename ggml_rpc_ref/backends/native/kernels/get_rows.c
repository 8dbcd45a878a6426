/* GET_ROWS: rows of src0, picked by the indices in src1, as F32 (I32 of I32). */
#include "blocks.h"

static void pick_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *table = &g->src[0], *indices = &g->src[1];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        int32_t index;
        memcpy(&index, node->src[1] + p.i1 * indices->nb[0] + p.i2 * indices->nb[1] + p.i3 * indices->nb[2], sizeof index);
        if (index < 0 || index >= table->ne[1]) {
            atomic_store(work->outcome, BAD_INDEX);
            return;
        }
        const uint8_t *from = row_at(table, node->src[0], index, p.i2, p.i3);
        uint8_t *to = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        if (table->type == g->dst.type)
            memcpy(to, from, (size_t)(4 * g->dst.ne[0]));
        else
            dequantise_row(table->type, from, (float *)to, g->dst.ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *table = &g->src[0];
    bool known = can_dequantise(table->type) || table->type == GGML_TYPE_I32;
    return known && dense_rows(table) && dense_rows(&g->dst) && plan_rows(g, pick_rows, 0.5);
}

KERNEL(get_rows, GGML_OP_GET_ROWS, plan);
