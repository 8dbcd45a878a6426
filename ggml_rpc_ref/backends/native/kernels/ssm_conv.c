/* SSM_CONV: each channel with a kernel of its own over the last tokens; sums in double precision. */
#include "elements.h"

static void convolve_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t taps = g->src[1].ne[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        for (int64_t c = 0; c < g->dst.ne[0]; c++) {
            const f32 *x = floats(&g->src[0], node->src[0], c, p.i2, 0) + p.i1, *kernel = floats(&g->src[1], node->src[1], c, 0, 0);
            double sum = 0;
            for (int64_t k = 0; k < taps; k++)
                sum += (double)x[k] * kernel[k];
            dst[c] = (float)sum;
        }
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, convolve_rows, 2.0 + g->src[1].ne[0]); }

KERNEL(ssm_conv, GGML_OP_SSM_CONV, plan);
