/* CONV_2D_DW: every channel of an image with a kernel of its own, a thread for each result. A tap on padding is left out.

   Whether channels lie innermost or outermost is in the strides. */
#include "window.cuh"

KERNEL(conv_2d_dw)
{
    const struct operand *kernel = &g.src[0], *images = &g.src[1];
    struct window width = WINDOW(conv_2d_dw, 0, images, kernel), height = WINDOW(conv_2d_dw, 1, images, kernel);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t kh = 0; kh < height.kernel; kh++)
            for (int64_t kw = 0; kw < width.kernel; kw++) {
                int64_t x, y;
                if (covers(&width, p.i0, kw, &x) & covers(&height, p.i1, kh, &y))
                    sum = fmaf(load(kernel->type, at(kernel, kw, kh, 0, p.i2)), f32_at(at(images, x, y, p.i2, p.i3)), sum);
            }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
