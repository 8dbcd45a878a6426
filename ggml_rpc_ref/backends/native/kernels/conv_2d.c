/* CONV_2D: images with a bank of kernels. src0: kernels, src1: images. */
#include "convolution.h"

static void convolve_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *image = &g->src[1], *dst = &g->dst;
    struct row_of_outputs r = {
        .width = {image->ne[0], kernel->ne[0], dst->ne[0], conv_2d_s0(g), conv_2d_p0(g), conv_2d_d0(g)},
        .height = {image->ne[1], kernel->ne[1], dst->ne[1], conv_2d_s1(g), conv_2d_p1(g), conv_2d_d1(g)},
        .depth = point,
        .channels = image->ne[2],
        .column_step = image->nb[0],
        .row_step = image->nb[1],
        .channel_step = image->nb[2],
        .kernel_type = kernel->type,
        .to_step = dst->nb[0],
    };
    int64_t one = kernel->ne[0] * kernel->ne[1] * kernel->ne[2] * type_size[kernel->type];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        r.y = p.i1;
        r.image = row_at(image, node->src[1], 0, 0, p.i3);
        r.kernel = node->src[0] + p.i2 * one;
        r.to = row_at(dst, node->dst, p.i1, p.i2, p.i3);
        convolve_row(&r, (double *)work->own);
    }
}

static bool plan(struct geometry *g)
{
    return plan_convolution(g, convolve_rows, g->src[0].ne[0] * g->src[0].ne[1] * g->src[0].ne[2]);
}

KERNEL(conv_2d, GGML_OP_CONV_2D, plan);
