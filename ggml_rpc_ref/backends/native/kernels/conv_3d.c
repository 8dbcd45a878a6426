/* CONV_3D: volumes with a bank of kernels; images and their channels, or results, share ne[3]. src0: kernels, src1: volumes. */
#include "convolution.h"

static void convolve_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *volume = &g->src[1], *dst = &g->dst;
    struct row_of_outputs r = {
        .width = {volume->ne[0], kernel->ne[0], dst->ne[0], conv_3d_s0(g), conv_3d_p0(g), conv_3d_d0(g)},
        .height = {volume->ne[1], kernel->ne[1], dst->ne[1], conv_3d_s1(g), conv_3d_p1(g), conv_3d_d1(g)},
        .depth = {volume->ne[2], kernel->ne[2], dst->ne[2], conv_3d_s2(g), conv_3d_p2(g), conv_3d_d2(g)},
        .channels = conv_3d_c(g),
        .column_step = volume->nb[0],
        .row_step = volume->nb[1],
        .plane_step = volume->nb[2],
        .channel_step = volume->nb[3],
        .kernel_type = kernel->type,
        .to_step = dst->nb[0],
    };
    int64_t one = kernel->ne[0] * kernel->ne[1] * kernel->ne[2] * conv_3d_c(g) * type_size[kernel->type];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        r.y = p.i1;
        r.z = p.i2;
        r.image = row_at(volume, node->src[1], 0, 0, p.i3 / conv_3d_oc(g) * conv_3d_c(g));
        r.kernel = node->src[0] + p.i3 % conv_3d_oc(g) * one;
        r.to = row_at(dst, node->dst, p.i1, p.i2, p.i3);
        convolve_row(&r, (double *)work->own);
    }
}

static bool plan(struct geometry *g)
{
    return plan_convolution(g, convolve_rows, g->src[0].ne[0] * g->src[0].ne[1] * g->src[0].ne[2] * conv_3d_c(g));
}

KERNEL(conv_3d, GGML_OP_CONV_3D, plan);
