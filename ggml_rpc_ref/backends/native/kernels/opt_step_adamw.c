/* OPT_STEP_ADAMW: one step of AdamW in place. src: weight, gradient, both momenta (written too), settings. */
#include "elements.h"

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
        f32 *w = (f32 *)row_of(&g->dst, node->dst, row), *m = (f32 *)row_of(&g->src[2], node->src[2], row);
        f32 *v = (f32 *)row_of(&g->src[3], node->src[3], row);
        const f32 *gradient = (const f32 *)row_of(&g->src[1], node->src[1], row);
        for (int64_t i = 0; i < g->dst.ne[0]; i++) {
            m[i] = m[i] * s.beta1 + gradient[i] * (1 - s.beta1);
            v[i] = v[i] * s.beta2 + gradient[i] * gradient[i] * (1 - s.beta2);
            w[i] = w[i] * keep - s.alpha * (m[i] * s.beta1h) / (sqrtf(v[i] * s.beta2h) + s.eps);
        }
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, step_rows, 4); }

KERNEL(opt_step_adamw, GGML_OP_OPT_STEP_ADAMW, plan);
