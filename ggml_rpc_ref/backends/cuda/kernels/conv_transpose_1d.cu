/* CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel; a thread for each result gathers what reaches it. */
#include "window.cuh"

KERNEL(conv_transpose_1d)
{
    const struct operand *kernel = &g.src[0], *x = &g.src[1];
    struct window along = {g.dst.ne[0], kernel->ne[0], conv_transpose_1d_s0(&g), 0, 1};
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t k = 0; k < along.kernel; k++) {
            int64_t l = output_at(&along, p.i0, k, x->ne[0]);
            for (int64_t channel = 0; l >= 0 && channel < x->ne[1]; channel++) {
                float value = as_kernels(kernel->type, f32_at(at(x, l, channel, 0, 0)));
                sum = fmaf(load(kernel->type, at(kernel, k, p.i1, channel, 0)), value, sum);
            }
        }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
