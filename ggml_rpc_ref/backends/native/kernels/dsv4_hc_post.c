/* DSV4_HC_POST: a layer's output put back into its streams, which are mixed with each other. src: x, residual, post, comb (may be
   absent: each stream keeps its own residual). */
#include "elements.h"

static void mix_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *residual = &g->src[1], *comb = &g->src[3];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        int64_t stream = p.i1, token = p.i2;
        double post = f32_at(&g->src[2], node->src[2], stream, token, 0, 0);
        for (int64_t i = 0; i < g->dst.ne[0]; i++) {
            double mixed = 0;
            if (!present(comb))
                mixed = f32_at(residual, node->src[1], i, stream, token, 0);
            for (int64_t s = 0; s < residual->ne[1] && present(comb); s++)
                mixed += (double)f32_at(residual, node->src[1], i, s, token, 0) * f32_at(comb, node->src[3], stream, s, token, 0);
            mixed += post * f32_at(&g->src[0], node->src[0], i, token, 0, 0);
            *(f32 *)element(&g->dst, node->dst, i, stream, token, 0) = (float)mixed;
        }
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, mix_rows, 2 + 1.5 * g->src[1].ne[1]); }

KERNEL(dsv4_hc_post, GGML_OP_DSV4_HC_POST, plan);
