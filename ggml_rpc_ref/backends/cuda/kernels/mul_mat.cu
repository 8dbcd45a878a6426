/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   mul_mat_naive   a warp for each result, in float32: what the others are held to, and what takes any type
*/
#include "blocks.cuh"

KERNEL(mul_mat_naive)
{
    const struct operand *w = &g.src[0], *x = &g.src[1];
    int64_t r2 = x->ne[2] / w->ne[2], r3 = x->ne[3] / w->ne[3], k = w->ne[0];
    int lane = threadIdx.x % WARP;
    int64_t warps = (int64_t)gridDim.x * blockDim.x / WARP, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (*g.outcome)
        return;
    for (int64_t i = first; i < elements_of(&g.dst); i += warps) {
        struct place p = place_of(&g.dst, i);
        const uint8_t *a = at(w, 0, p.i0, p.i2 / r2, p.i3 / r3), *b = at(x, 0, p.i1, p.i2, p.i3);
        float sum = 0;
        for (int64_t n = lane; n < k; n += WARP)
            sum = fmaf(element(w->type, a, n), element(x->type, b, n), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            *(float *)at_place(&g.dst, p) = sum;
    }
}
