/* CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel, s0 elements after the previous one. src0: kernel, src1: x. */
#include "transposing.h"

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0];
    int64_t length = g->src[1].ne[0], taps = kernel->ne[0];
    float *x = (float *)work->own, *sum = x + length;
    for (int64_t row = first; row < last; row++) {
        memset(sum, 0, (size_t)(4 * taps * length));
        for (int64_t c = 0; c < g->src[1].ne[1]; c++) {
            read_inputs(floats(&g->src[1], node->src[1], c, 0, 0), length, is_f16(kernel), x);
            for (int64_t k = 0; k < taps; k++)
                add_products(sum + k * length, x, float_at(kernel->type, element(kernel, node->src[0], k, row, c, 0)), length);
        }
        put_together(sum, taps, length, conv_transpose_1d_s0(g), floats(&g->dst, node->dst, row, 0, 0), g->dst.ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    g->own = 4 * g->src[1].ne[0] * (g->src[0].ne[0] + 1);
    add_phase(g, add_rows, g->dst.ne[1], g->dst.ne[0] + 0.3 * g->src[0].ne[0] * (double)elements(&g->src[1]));
    return true;
}

KERNEL(conv_transpose_1d, GGML_OP_CONV_TRANSPOSE_1D, plan);
