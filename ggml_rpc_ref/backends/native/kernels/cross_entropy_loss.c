/* CROSS_ENTROPY_LOSS: the cross entropy of logits (src0) and distributions (src1), averaged over all rows. */
#include "exponentials.h"
#include "partial.h"

/* The sum of labels times the logarithms of the logits' softmax. */
static double loss_of(const f32 *logits, const f32 *labels, int64_t n)
{
    float top = largest_of((const float *)logits, n), logarithm = (float)log(sum_of_exponentials((const float *)logits, n, top));
    double loss = 0;
    for (int64_t i = 0; i < n; i++)
        loss += (logits[i] - top - logarithm) * labels[i];
    return loss;
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *l = &g->src[0];
    for (int64_t unit = first; unit < last; unit++) {
        double loss = 0;
        int64_t row = unit * rows_of_unit(l), end = min64(row + rows_of_unit(l), rows(l));
        for (; row < end; row++)
            loss += loss_of((const f32 *)row_of(l, node->src[0], row), (const f32 *)row_of(&g->src[1], node->src[1], row), l->ne[0]);
        memcpy(partial_at(work, unit), &loss, sizeof loss);
    }
}

static void add_units(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last;
    const struct layout *l = &node->of->src[0];
    double loss = 0, part;
    for (int64_t unit = 0; unit < units_of(l); unit++) {
        memcpy(&part, partial_at(work, unit), sizeof part);
        loss += part;
    }
    *(f32 *)node->dst = (float)loss * (-1.0f / (float)rows(l));
}

static bool plan(struct geometry *g) { return plan_partial(g, add_rows, add_units, 6); }

KERNEL(cross_entropy_loss, GGML_OP_CROSS_ENTROPY_LOSS, plan);
