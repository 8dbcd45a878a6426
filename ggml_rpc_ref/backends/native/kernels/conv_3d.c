/* CONV_3D: volumes with a bank of kernels; images and their channels, or results, share ne[3]. src0: kernels, src1: volumes. */
#include "convolution.h"

static struct convolution convolution_of(const struct geometry *g)
{
    const struct layout *kernel = &g->src[0], *volume = &g->src[1], *dst = &g->dst;
    return (struct convolution){
        .width = {volume->ne[0], kernel->ne[0], dst->ne[0], conv_3d_s0(g), conv_3d_p0(g), conv_3d_d0(g)},
        .height = {volume->ne[1], kernel->ne[1], dst->ne[1], conv_3d_s1(g), conv_3d_p1(g), conv_3d_d1(g)},
        .depth = {volume->ne[2], kernel->ne[2], dst->ne[2], conv_3d_s2(g), conv_3d_p2(g), conv_3d_d2(g)},
        .channels = conv_3d_c(g),
        .outputs = conv_3d_oc(g),
        .images = dst->ne[3] / conv_3d_oc(g),
        .column_step = volume->nb[0],
        .row_step = volume->nb[1],
        .plane_step = volume->nb[2],
        .channel_step = volume->nb[3],
        .image_step = volume->nb[3] * conv_3d_c(g),
        .to_column_step = dst->nb[0],
        .to_row_step = dst->nb[1],
        .to_plane_step = dst->nb[2],
        .to_output_step = dst->nb[3],
        .to_image_step = dst->nb[3] * conv_3d_oc(g),
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

KERNEL(conv_3d, GGML_OP_CONV_3D, plan);
