/* COUNT_EQUAL: at how many places two tensors of I32 are equal. */
#include "partial.h"

static void count_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct layout *a = &node->of->src[0], *b = &node->of->src[1];
    for (int64_t unit = first; unit < last; unit++) {
        int64_t count = 0, row = unit * rows_of_unit(a), end = min64(row + rows_of_unit(a), rows(a));
        for (; row < end; row++) {
            const uint8_t *x = row_of(a, node->src[0], row), *y = row_of(b, node->src[1], row);
            for (int64_t i = 0; i < a->ne[0]; i++)
                count += *(const i32 *)(x + i * a->nb[0]) == *(const i32 *)(y + i * b->nb[0]);
        }
        memcpy(partial_at(work, unit), &count, sizeof count);
    }
}

static void add_units(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last;
    int64_t count = 0, part;
    for (int64_t unit = 0; unit < units_of(&node->of->src[0]); unit++) {
        memcpy(&part, partial_at(work, unit), sizeof part);
        count += part;
    }
    *(i64 *)node->dst = count;
}

static bool plan(struct geometry *g) { return plan_partial(g, count_rows, add_units, 0.8); }

KERNEL(count_equal, GGML_OP_COUNT_EQUAL, plan);
