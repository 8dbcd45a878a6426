/* OPT_STEP_ADAMW: one step of AdamW in place. src: weight, gradient, both momenta (written too), settings. */
#include "rowwise.h"

#define VECTOR (4 * LANES) /* bytes */

struct settings {
    float alpha, beta1, beta2, eps, decay, beta1h, beta2h;
};

static void step_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    struct settings s;
    memcpy(&s, node->src[4], sizeof s);
    float keep = 1 - s.alpha * s.decay;
    for (int64_t row = first; row < last; row++) {
        uint8_t *w = row_of(&g->dst, node->dst, row), *m = row_of(&g->src[2], node->src[2], row);
        uint8_t *v = row_of(&g->src[3], node->src[3], row), *gradient = row_of(&g->src[1], node->src[1], row);
        for (int64_t left = g->dst.ne[0]; left > 0; left -= LANES, w += VECTOR, m += VECTOR, v += VECTOR, gradient += VECTOR) {
            f32x16 x = load_part(gradient, left);
            f32x16 mean = load_part(m, left) * s.beta1 + x * (1 - s.beta1);
            f32x16 square = load_part(v, left) * s.beta2 + x * x * (1 - s.beta2);
            store_part(m, mean, left);
            store_part(v, square, left);
            store_part(w, load_part(w, left) * keep - s.alpha * (mean * s.beta1h) / (sqrt16(square * s.beta2h) + s.eps), left);
        }
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, step_rows, 2.5); }

KERNEL(opt_step_adamw, GGML_OP_OPT_STEP_ADAMW, plan);
