/* CONV_2D_DW: each channel of an image with a kernel of its own; a tap on padding is left out. src0: kernels, src1: images. */
#include "window.h"

static float filtered(const struct node *node, struct axis width, struct axis height, int64_t x, struct place p)
{
    const struct geometry *g = node->of;
    double sum = 0;
    for (int64_t kh = 0; kh < height.kernel; kh++)
        for (int64_t kw = 0; kw < width.kernel; kw++) {
            int64_t row = covered(&height, p.i1, kh), column = covered(&width, x, kw);
            if (row < 0 || column < 0)
                continue;
            double weight = float_at(g->src[0].type, element(&g->src[0], node->src[0], kw, kh, 0, p.i2));
            sum += weight * f32_at(&g->src[1], node->src[1], column, row, p.i2, p.i3);
        }
    return (float)sum;
}

static void filter_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *image = &g->src[1], *dst = &g->dst;
    struct axis width = {image->ne[0], kernel->ne[0], dst->ne[0], conv_2d_dw_s0(g), conv_2d_dw_p0(g), conv_2d_dw_d0(g)};
    struct axis height = {image->ne[1], kernel->ne[1], dst->ne[1], conv_2d_dw_s1(g), conv_2d_dw_p1(g), conv_2d_dw_d1(g)};
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        for (int64_t x = 0; x < dst->ne[0]; x++)
            *(f32 *)element(dst, node->dst, x, p.i1, p.i2, p.i3) = filtered(node, width, height, x, p);
    }
}

static bool plan(struct geometry *g)
{
    return is_float(&g->src[0]) && plan_rows(g, filter_rows, 3.0 * g->src[0].ne[0] * g->src[0].ne[1]);
}

KERNEL(conv_2d_dw, GGML_OP_CONV_2D_DW, plan);
