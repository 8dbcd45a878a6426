/* MUL_MAT_ID: each row of src1 times the matrix of the expert that src2 chooses for it.

   mul_mat_id_check   refuses indices out of range before anything is computed
   mul_mat_id_naive   a warp for each result, in float32, of any type
*/
#include "blocks.cuh"

DEVICE int32_t expert_of(const struct geometry *g, int64_t slot, int64_t token) { return i32_at(at(&g->src[2], slot, token, 0, 0)); }

KERNEL(mul_mat_id_check)
{
    EACH(i, elements_of(&g.src[2])) {
        int32_t expert = expert_of(&g, i % g.src[2].ne[0], i / g.src[2].ne[0]);
        if (expert < 0 || expert >= g.src[0].ne[2])
            bad_index(&g);
    }
}

KERNEL(mul_mat_id_naive)
{
    const struct operand *w = &g.src[0], *x = &g.src[1];
    int lane = threadIdx.x % WARP;
    int64_t warps = (int64_t)gridDim.x * blockDim.x / WARP, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (*g.outcome)
        return;
    for (int64_t i = first; i < elements_of(&g.dst); i += warps) {
        struct place p = place_of(&g.dst, i);
        const uint8_t *a = at(w, 0, p.i0, expert_of(&g, p.i1, p.i2), 0), *b = at(x, 0, p.i1 % x->ne[1], p.i2, 0);
        float sum = 0;
        for (int64_t n = lane; n < w->ne[0]; n += WARP)
            sum = fmaf(element(w->type, a, n), element(x->type, b, n), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            *(float *)at_place(&g.dst, p) = sum;
    }
}
