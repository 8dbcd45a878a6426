/* CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel, s0 elements after the previous one. src0: kernel, src1: x.

   With an F16 kernel x is rounded to F16 first. Sums in double precision. */
#include "elements.h"

static void add_row(const struct node *node, int64_t row, double *sum)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0];
    int64_t stride = conv_transpose_1d_s0(g), length = g->src[1].ne[0];
    for (int64_t c = 0; c < g->src[1].ne[1]; c++) {
        const f32 *x = floats(&g->src[1], node->src[1], c, 0, 0);
        for (int64_t k = 0; k < kernel->ne[0]; k++) {
            double weight = float_at(kernel->type, element(kernel, node->src[0], k, row, c, 0));
            for (int64_t i = 0; i < length; i++)
                sum[i * stride + k] += weight * (is_f16(kernel) ? from_half(to_half(x[i])) : x[i]);
        }
    }
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    double *sum = (double *)work->own;
    for (int64_t row = first; row < last; row++) {
        f32 *dst = floats(&g->dst, node->dst, row, 0, 0);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            sum[i] = 0;
        add_row(node, row, sum);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            dst[i] = (float)sum[i];
    }
}

static bool plan(struct geometry *g)
{
    g->own = 8 * g->dst.ne[0];
    add_phase(g, add_rows, g->dst.ne[1], g->dst.ne[0] + 1.5 * g->src[0].ne[0] * (double)elements(&g->src[1]));
    return true;
}

KERNEL(conv_transpose_1d, GGML_OP_CONV_TRANSPOSE_1D, plan);
