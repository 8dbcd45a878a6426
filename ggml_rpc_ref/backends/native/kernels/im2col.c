/* IM2COL: the window of every output of a convolution as a row. src0: the kernel, for its dimensions only; src1: the images. */
#include "unrolling.h"

static void unroll_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], images = unrolled_layout(g), *image = &images, *dst = &g->dst;
    uint8_t *data = unrolled_images(node, work);
    bool flat = im2col_is_2D(g) != 1;
    struct unrolled u = {
        .width = {image->ne[0], kernel->ne[0], dst->ne[1], im2col_s0(g), im2col_p0(g), im2col_d0(g)},
        .height = flat ? point : (struct axis){image->ne[1], kernel->ne[1], dst->ne[2], im2col_s1(g), im2col_p1(g), im2col_d1(g)},
        .depth = point,
        .channels = image->ne[flat ? 1 : 2],
        .row_step = image->nb[1],
        .channel_step = image->nb[flat ? 1 : 2],
        .size = type_size[image->type],
    };
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        u.x = p.i1;
        u.y = flat ? 0 : p.i2;
        u.image = flat ? row_at(image, data, 0, p.i2, 0) : row_at(image, data, 0, 0, p.i3);
        if (flat && im2col_p1(g)) /* upstream's row is then outside of the only one */
            u.image = NULL;
        unroll(&u, row_at(dst, node->dst, p.i1, p.i2, p.i3));
    }
}

static bool plan(struct geometry *g) { return plan_unrolling(g, unroll_rows); }

KERNEL(im2col, GGML_OP_IM2COL, plan);
