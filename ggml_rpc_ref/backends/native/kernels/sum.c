/* SUM: all elements, wherever they lie, added up in double precision; F32, F16 or BF16. */
#include "partial.h"
#include "sums.h"

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct layout *l = &node->of->src[0];
    for (int64_t unit = first; unit < last; unit++) {
        double sum = 0;
        int64_t row = unit * rows_of_unit(l), end = min64(row + rows_of_unit(l), rows(l));
        for (; row < end; row++) {
            const uint8_t *x = row_of(l, node->src[0], row);
            if (is_f32(l) && dense_rows(l))
                sum += sum_of_row((const float *)x, l->ne[0]);
            else
                for (int64_t i = 0; i < l->ne[0]; i++)
                    sum += float_at(l->type, x + i * l->nb[0]);
        }
        memcpy(partial_at(work, unit), &sum, sizeof sum);
    }
}

static void add_units(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last;
    const struct geometry *g = node->of;
    double sum = 0, part;
    for (int64_t unit = 0; unit < units_of(&g->src[0]); unit++) {
        memcpy(&part, partial_at(work, unit), sizeof part);
        sum += part;
    }
    if (is_f32(&g->dst))
        *(f32 *)node->dst = (float)sum;
    else
        *(u16 *)node->dst = is_f16(&g->dst) ? to_half((float)sum) : to_bf16((float)sum);
}

static bool plan(struct geometry *g) { return is_float(&g->src[0]) && plan_partial(g, add_rows, add_units, 0.5); }

KERNEL(sum, GGML_OP_SUM, plan);
