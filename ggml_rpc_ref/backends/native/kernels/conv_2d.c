/* CONV_2D: images with a bank of kernels. src0: kernels, src1: images. */
#include "convolution.h"

static struct convolution convolution_of(const struct geometry *g)
{
    const struct layout *kernel = &g->src[0], *image = &g->src[1], *dst = &g->dst;
    return (struct convolution){
        .width = {image->ne[0], kernel->ne[0], dst->ne[0], conv_2d_s0(g), conv_2d_p0(g), conv_2d_d0(g)},
        .height = {image->ne[1], kernel->ne[1], dst->ne[1], conv_2d_s1(g), conv_2d_p1(g), conv_2d_d1(g)},
        .depth = point,
        .channels = image->ne[2],
        .outputs = dst->ne[2],
        .images = dst->ne[3],
        .column_step = image->nb[0],
        .row_step = image->nb[1],
        .channel_step = image->nb[2],
        .image_step = image->nb[3],
        .to_column_step = dst->nb[0],
        .to_row_step = dst->nb[1],
        .to_output_step = dst->nb[2],
        .to_image_step = dst->nb[3],
        .kernel_type = kernel->type,
    };
}

static void convolve(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    struct convolution c = convolution_of(node->of);
    for (int64_t unit = first; unit < last; unit++)
        convolve_unit(&c, node->src[0], node->src[1], node->dst, unit, (struct slab *)work->own);
}

static bool plan(struct geometry *g)
{
    struct convolution c = convolution_of(g);
    return plan_convolution(g, convolve, &c);
}

KERNEL(conv_2d, GGML_OP_CONV_2D, plan);
