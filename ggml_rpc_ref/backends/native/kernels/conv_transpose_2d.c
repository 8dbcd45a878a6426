/* CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel, `stride` pixels after its neighbour's. src0: kernel, src1: images.

   In some versions the first image only. */
#include "transposing.h"

/* The sums of each tap for a row of results. */
static void add_row(const struct node *node, struct place p, float *x, float *sum)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *image = &g->src[1];
    int64_t stride = conv_transpose_2d_stride(g), width = image->ne[0];
    for (int64_t kh = p.i1 % stride; kh < kernel->ne[1] && kh <= p.i1; kh += stride) {
        int64_t y = (p.i1 - kh) / stride;
        if (y >= image->ne[1])
            continue;
        for (int64_t c = 0; c < image->ne[2]; c++) {
            read_inputs(floats(image, node->src[1], y, c, p.i3), width, is_f16(kernel), x);
            for (int64_t kw = 0; kw < kernel->ne[0]; kw++)
                add_products(sum + kw * width, x, float_at(kernel->type, element(kernel, node->src[0], kw, kh, p.i2, c)), width);
        }
    }
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    bool all = has_change(g, CHANGE_CONV_TRANSPOSE_2D_IMAGES);
    int64_t width = g->src[1].ne[0], taps = g->src[0].ne[0];
    float *x = (float *)work->own, *sum = x + width;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        memset(sum, 0, (size_t)(4 * taps * width));
        if (all || p.i3 == 0)
            add_row(node, p, x, sum);
        put_together(sum, taps, width, conv_transpose_2d_stride(g), floats(&g->dst, node->dst, p.i1, p.i2, p.i3), g->dst.ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    double taps = (double)g->src[0].ne[0] * (double)parts_of(g->src[0].ne[1], conv_transpose_2d_stride(g)) * g->src[1].ne[2];
    g->own = 4 * g->src[1].ne[0] * (g->src[0].ne[0] + 1);
    add_phase(g, add_rows, rows(&g->dst), g->dst.ne[0] + 0.3 * taps * g->src[1].ne[0]);
    return true;
}

KERNEL(conv_transpose_2d, GGML_OP_CONV_TRANSPOSE_2D, plan);
