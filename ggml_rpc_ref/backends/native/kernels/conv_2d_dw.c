/* CONV_2D_DW: each channel of an image with a kernel of its own; a tap on padding is left out. src0: kernels, src1: images.

   A row of results adds up tap by tap, in float32. */
#include "vector.h"
#include "window.h"

/* Outputs from *begin to *end have a tap on the image. */
static void outputs_of_tap(const struct axis *a, int64_t tap, int64_t *begin, int64_t *end)
{
    int64_t shift = a->padding - tap * a->dilation; /* output * stride - shift is the input */
    *begin = shift > 0 ? parts_of(shift, a->stride) : 0;
    *end = a->size + shift > 0 ? min64(parts_of(a->size + shift, a->stride), a->outputs) : 0;
}

static void add_tap(const struct axis *a, int64_t tap, float weight, const uint8_t *row, int64_t step, float *sum)
{
    int64_t o, end;
    outputs_of_tap(a, tap, &o, &end);
    const uint8_t *x = row + (o * a->stride + tap * a->dilation - a->padding) * step;
    if (a->stride == 1 && step == 4)
        for (; o + LANES <= end; o += LANES, x += 4 * LANES)
            store16(sum + o, fma16(load16(x), splat(weight), load16(sum + o)));
    for (; o < end; o++, x += a->stride * step)
        sum[o] += weight * *(const f32 *)x;
}

static void filter_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0], *image = &g->src[1], *dst = &g->dst;
    struct axis width = {image->ne[0], kernel->ne[0], dst->ne[0], conv_2d_dw_s0(g), conv_2d_dw_p0(g), conv_2d_dw_d0(g)};
    struct axis height = {image->ne[1], kernel->ne[1], dst->ne[1], conv_2d_dw_s1(g), conv_2d_dw_p1(g), conv_2d_dw_d1(g)};
    float *sum = (float *)work->own;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(dst, row);
        memset(sum, 0, (size_t)(4 * dst->ne[0]));
        for (int64_t kh = 0; kh < height.kernel; kh++) {
            int64_t y = covered(&height, p.i1, kh);
            for (int64_t kw = 0; kw < width.kernel && y >= 0; kw++)
                add_tap(&width, kw, float_at(kernel->type, element(kernel, node->src[0], kw, kh, 0, p.i2)),
                        row_at(image, node->src[1], y, p.i2, p.i3), image->nb[0], sum);
        }
        for (int64_t x = 0; x < dst->ne[0]; x++)
            *(f32 *)element(dst, node->dst, x, p.i1, p.i2, p.i3) = sum[x];
    }
}

static bool plan(struct geometry *g)
{
    g->own = 4 * g->dst.ne[0];
    return is_float(&g->src[0]) && plan_rows(g, filter_rows, 1 + 0.4 * g->src[0].ne[0] * g->src[0].ne[1]);
}

KERNEL(conv_2d_dw, GGML_OP_CONV_2D_DW, plan);
