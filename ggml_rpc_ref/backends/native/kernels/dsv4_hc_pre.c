/* DSV4_HC_PRE: streams joined to one, each with its weight, or a gate for each element; in some versions times a factor.
   src: x, weights. */
#include "elements.h"

static double weight_at(const struct node *node, bool gated, int64_t i, int64_t stream, int64_t token)
{
    const struct layout *l = &node->of->src[1];
    if (!gated)
        return f32_at(l, node->src[1], stream, token, 0, 0);
    return 1 / (1 + exp(-(double)f32_at(l, node->src[1], i, stream, token, 0)));
}

static void join_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    bool scaled = has_change(g, CHANGE_DSV4_HC_PRE_SCALE), gated = scaled && dsv4_hc_pre_gated(g);
    double factor = scaled ? dsv4_hc_pre_scale(g) : 1;
    for (int64_t token = first; token < last; token++)
        for (int64_t i = 0; i < g->dst.ne[0]; i++) {
            double total = 0;
            for (int64_t stream = 0; stream < g->src[0].ne[1]; stream++)
                total += f32_at(&g->src[0], node->src[0], i, stream, token, 0) * weight_at(node, gated, i, stream, token);
            *(f32 *)element(&g->dst, node->dst, i, token, 0, 0) = (float)(total * factor);
        }
}

static bool plan(struct geometry *g) { return plan_rows(g, join_rows, 6.0 * g->src[0].ne[1]); }

KERNEL(dsv4_hc_pre, GGML_OP_DSV4_HC_PRE, plan);
