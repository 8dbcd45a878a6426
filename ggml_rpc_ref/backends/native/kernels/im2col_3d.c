/* IM2COL_3D: the window of every output of a volume's convolution as a row. src0: the kernel, for its dimensions; src1: the volumes. */
#include "unrolling.h"

static void unroll_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], volumes_here = unrolled_layout(g), *volume = &volumes_here, *dst = &g->dst;
    uint8_t *data = unrolled_images(node, work);
    int64_t volumes = volume->ne[3] / im2col_3d_IC(g), planes = volumes ? dst->ne[3] / volumes : 1;
    struct unrolled u = {
        .width = {volume->ne[0], kernel->ne[0], dst->ne[1], im2col_3d_s0(g), im2col_3d_p0(g), im2col_3d_d0(g)},
        .height = {volume->ne[1], kernel->ne[1], dst->ne[2], im2col_3d_s1(g), im2col_3d_p1(g), im2col_3d_d1(g)},
        .depth = {volume->ne[2], kernel->ne[2], planes, im2col_3d_s2(g), im2col_3d_p2(g), im2col_3d_d2(g)},
        .channels = im2col_3d_IC(g),
        .row_step = volume->nb[1],
        .plane_step = volume->nb[2],
        .channel_step = volume->nb[3],
        .size = type_size[volume->type],
    };
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        u.x = p.i1;
        u.y = p.i2;
        u.z = p.i3 % planes;
        u.image = row_at(volume, data, 0, 0, p.i3 / planes * im2col_3d_IC(g));
        unroll(&u, row_at(dst, node->dst, p.i1, p.i2, p.i3));
    }
}

static bool plan(struct geometry *g) { return plan_unrolling(g, unroll_rows); }

KERNEL(im2col_3d, GGML_OP_IM2COL_3D, plan);
