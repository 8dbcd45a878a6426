/* CONV_2D: convolution of images with a bank of kernels, a thread for each result. A tap on padding counts as 0. */
#include "window.cuh"

KERNEL(conv_2d)
{
    const struct operand *kernel = &g.src[0], *images = &g.src[1];
    struct window width = WINDOW(conv_2d, 0, images, kernel), height = WINDOW(conv_2d, 1, images, kernel);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t channel = 0; channel < kernel->ne[2]; channel++)
            for (int64_t kh = 0; kh < height.kernel; kh++)
                for (int64_t kw = 0; kw < width.kernel; kw++) {
                    int64_t x, y;
                    bool inside = covers(&width, p.i0, kw, &x) & covers(&height, p.i1, kh, &y);
                    float value = inside ? as_kernels(kernel->type, f32_at(at(images, x, y, channel, p.i3))) : 0;
                    sum = fmaf(load(kernel->type, at(kernel, kw, kh, channel, p.i2)), value, sum);
                }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
