/* CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel, `stride` pixels after its neighbour's. src0: kernel, src1: images.

   With an F16 kernel the pixels are rounded to F16 first. Sums in double precision. In some versions the first image only. */
#include "elements.h"

static void add_row(const struct node *node, struct place p, double *sum)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *image = &g->src[1];
    int64_t stride = conv_transpose_2d_stride(g), width = image->ne[0];
    for (int64_t kh = 0; kh < kernel->ne[1] && kh <= p.i1; kh++) {
        int64_t y = (p.i1 - kh) / stride;
        if ((p.i1 - kh) % stride || y >= image->ne[1])
            continue;
        for (int64_t c = 0; c < image->ne[2]; c++) {
            const f32 *x = floats(image, node->src[1], y, c, p.i3);
            for (int64_t kw = 0; kw < kernel->ne[0]; kw++) {
                double weight = float_at(kernel->type, element(kernel, node->src[0], kw, kh, p.i2, c));
                for (int64_t i = 0; i < width; i++)
                    sum[i * stride + kw] += weight * (is_f16(kernel) ? from_half(to_half(x[i])) : x[i]);
            }
        }
    }
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    bool all = has_change(g, CHANGE_CONV_TRANSPOSE_2D_IMAGES);
    double *sum = (double *)work->own;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        f32 *dst = floats(&g->dst, node->dst, p.i1, p.i2, p.i3);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            sum[i] = 0;
        if (all || p.i3 == 0)
            add_row(node, p, sum);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            dst[i] = (float)sum[i];
    }
}

static bool plan(struct geometry *g)
{
    double taps = (double)g->src[0].ne[0] * (double)parts_of(g->src[0].ne[1], conv_transpose_2d_stride(g)) * g->src[1].ne[2];
    g->own = 8 * g->dst.ne[0];
    add_phase(g, add_rows, rows(&g->dst), g->dst.ne[0] + 1.5 * taps * g->src[1].ne[0]);
    return true;
}

KERNEL(conv_transpose_2d, GGML_OP_CONV_TRANSPOSE_2D, plan);
