/* OUT_PROD: the sum over k of column k of src0 times row k of src1, a thread for each result; src0 may be of blocks. */
#include "blocks.cuh"

KERNEL(out_prod)
{
    const struct operand *a = &g.src[0], *b = &g.src[1];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t i2 = p.i2 / (g.dst.ne[2] / a->ne[2]), i3 = p.i3 / (g.dst.ne[3] / a->ne[3]);
        float sum = 0;
        for (int64_t k = 0; k < a->ne[1]; k++)
            sum = fmaf(element(a->type, at(a, 0, k, i2, i3), p.i0), f32_at(at(b, p.i1, k, p.i2, p.i3)), sum);
        *(float *)at_place(&g.dst, p) = sum;
    }
}
