/* CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel; a thread for each result gathers what reaches it.

   In some versions only the first image is computed and the others' results are 0. */
#include "window.cuh"

KERNEL(conv_transpose_2d)
{
    const struct operand *kernel = &g.src[0], *images = &g.src[1];
    int64_t stride = conv_transpose_2d_stride(&g), count = has_change(&g, CHANGE_CONV_TRANSPOSE_2D_IMAGES) ? images->ne[3] : 1;
    struct window width = {g.dst.ne[0], kernel->ne[0], stride, 0, 1}, height = {g.dst.ne[1], kernel->ne[1], stride, 0, 1};
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t kh = 0; p.i3 < count && kh < height.kernel; kh++) {
            int64_t y = output_at(&height, p.i1, kh, images->ne[1]);
            for (int64_t kw = 0; y >= 0 && kw < width.kernel; kw++) {
                int64_t x = output_at(&width, p.i0, kw, images->ne[0]);
                for (int64_t channel = 0; x >= 0 && channel < images->ne[2]; channel++) {
                    float value = as_kernels(kernel->type, f32_at(at(images, x, y, channel, p.i3)));
                    sum = fmaf(load(kernel->type, at(kernel, kw, kh, p.i2, channel)), value, sum);
                }
            }
        }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
