/* SSM_CONV: every channel with a kernel of its own over the last tokens, a thread for each result. */
#include "kernel.cuh"

KERNEL(ssm_conv)
{
    const struct operand *x = &g.src[0], *kernel = &g.src[1];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t k = 0; k < kernel->ne[0]; k++)
            sum = fmaf(f32_at(at(x, p.i1 + k, p.i0, p.i2, 0)), f32_at(at(kernel, k, p.i0, 0, 0)), sum);
        *(float *)at_place(&g.dst, p) = sum;
    }
}
