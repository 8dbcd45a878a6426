/* MUL_MAT_ID: each row of src1 times the matrix of the expert that src2 chooses for it.

   mul_mat_id_check   refuses indices out of range before anything is computed
   mul_mat_id_naive   a warp for each result, in float32, of any type
   mul_mat_id_round   rounds rows of src1 to eight bits (rounded.cuh), for
   mul_mat_id_<type>  some warps for each result, from weights in blocks
*/
#include "rounded.cuh"

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

KERNEL(mul_mat_id_round) { round_rows(&g); }

/* more[0]: warps for a result. Blocks along x: rows of an expert's weights; along y: results of a token; along z: tokens. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE> DEVICE void multiply_chosen(const struct geometry &g)
{
    __shared__ float part[MOST_WARPS];
    const struct operand *w = &g.src[0], *x = &g.src[1];
    int each = (int)g.more[0] * WARP, thread = threadIdx.x % each;
    int64_t i = (int64_t)blockIdx.x * (blockDim.x / each) + threadIdx.x / each, slot = blockIdx.y, token = blockIdx.z;
    float sum = 0;
    if (*g.outcome)
        return;
    if (i < w->ne[1]) {
        const uint8_t *weights = at(w, 0, i, expert_of(&g, slot, token), 0);
        int64_t row = token * x->ne[1] + slot % x->ne[1];
        struct rounded rows = rounded_at(&g, row);
        if (strange_rows(&g)[row])
            sum = multiply_plain(w->type, weights, at(x, 0, slot % x->ne[1], token, 0), w->ne[0], thread, each);
        else
            multiply_share<take, BLOCK, SIZE, 1>(weights, w->ne[0], thread, each, &rows, &sum);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (i < w->ne[1] && thread == 0) {
        float total = 0;
        for (int warp = 0; warp < g.more[0]; warp++)
            total += part[threadIdx.x / WARP + warp];
        *(float *)at(&g.dst, i, slot, token, 0) = total;
    }
}

#define CHOSEN_OF(type, block, size) KERNEL(mul_mat_id_##type) { multiply_chosen<take_##type, block, size>(g); }
PACKED_TYPES(CHOSEN_OF)
LEVEL_TYPES(CHOSEN_OF)
