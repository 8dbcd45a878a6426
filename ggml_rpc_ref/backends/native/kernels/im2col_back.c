/* IM2COL_BACK: every pixel sums the gradients of its copies, in float32, taps in ascending order. src0: gradient, src1: the kernel,
   for its dimensions only. */
#include "window.h"

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *gradient = &g->src[0], *kernel = &g->src[1], *dst = &g->dst;
    bool flat = im2col_back_is_2D(g) != 1;
    struct axis width = {dst->ne[0], kernel->ne[0], gradient->ne[1], im2col_back_s0(g), im2col_back_p0(g), im2col_back_d0(g)};
    struct axis height = {dst->ne[1], kernel->ne[1], gradient->ne[2], im2col_back_s1(g), im2col_back_p1(g), im2col_back_d1(g)};
    if (flat)
        height = point;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        int64_t channel = flat ? p.i1 : p.i2, image = flat ? p.i2 : p.i3, y = flat ? 0 : p.i1;
        f32 *to = floats(dst, node->dst, p.i1, p.i2, p.i3);
        memset(to, 0, (size_t)(4 * dst->ne[0]));
        for (int64_t kh = 0; kh < height.kernel; kh++)
            for (int64_t oh = 0; oh < height.outputs; oh++) {
                if (covered(&height, oh, kh) != y)
                    continue;
                for (int64_t kw = 0; kw < width.kernel; kw++)
                    for (int64_t ow = 0; ow < width.outputs; ow++) {
                        int64_t x = covered(&width, ow, kw), tap = (channel * height.kernel + kh) * width.kernel + kw;
                        if (x >= 0)
                            to[x] += flat ? f32_at(gradient, node->src[0], tap, ow, image, 0)
                                          : f32_at(gradient, node->src[0], tap, ow, oh, image);
                    }
            }
    }
}

static bool plan(struct geometry *g)
{
    double taps = (double)g->src[1].ne[0] * (im2col_back_is_2D(g) == 1 ? g->src[1].ne[1] : 1);
    add_phase(g, add_rows, rows(&g->dst), g->dst.ne[0] + 2 * taps * g->src[0].ne[1]);
    return true;
}

KERNEL(im2col_back, GGML_OP_IM2COL_BACK, plan);
