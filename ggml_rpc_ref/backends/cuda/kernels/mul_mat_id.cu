/* MUL_MAT_ID: each row of src1 times the matrix of the expert that src2 chooses for it.

   mul_mat_id_check   refuses indices out of range before anything is computed
   mul_mat_id_naive   a warp for each result, in float32, of any type
   mul_mat_id_round   rounds rows of src1 to eight bits (rounded.cuh), for
   mul_mat_id_<type>  some warps for two results, from weights in blocks
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

/* more[0]: warps for ROWS results. Blocks along x: rows of an expert's weights; along y: results of a token; along z: tokens. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int APART, bool MINIMUM, int LESS, int ROWS>
DEVICE void multiply_chosen(const struct geometry &g)
{
    DYNAMIC_SHARED(memory);
    const struct operand *w = &g.src[0], *x = &g.src[1];
    struct share mine = share_of<ROWS>((int)g.more[0]);
    int lane = threadIdx.x % WARP;
    int64_t slot = blockIdx.y, token = blockIdx.z, of_token = x->ne[1] == 1 ? 0 : slot % x->ne[1], row = token * x->ne[1] + of_token;
    if (*g.outcome)
        return;
    const uint8_t *weights[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        weights[r] = at(w, 0, min64(mine.row + r, w->ne[1] - 1), expert_of(&g, slot, token), 0);
    struct rounded rounded = rounded_at(&g, row);
    float sum[ROWS][1] = {};
    if (mine.row < w->ne[1])
        multiply_rounded<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, 1>(w, weights, &mine, &rounded, memory, sum);
    add_shares<ROWS>(&mine, sum[0]);
    uint32_t odd = 0; /* a bit for each result that is NaN, by a group that can't be rounded or by weights */
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        if (mine.thread == 0 && mine.row + r < w->ne[1]) {
            *(float *)at(&g.dst, mine.row + r, slot, token, 0) = sum[r][0];
            odd |= (uint32_t)isnan(sum[r][0]) << r;
        }
    odd = __shfl_sync(ALL, odd, 0);
    for (int r = 0; odd >> r; r++) {
        float plain = warp_sum(multiply_plain(w->type, weights[0] + r * w->nb[1], at(x, 0, of_token, token, 0), w->ne[0], lane, WARP));
        if (lane == 0 && odd >> r & 1)
            *(float *)at(&g.dst, mine.row + r, slot, token, 0) = plain;
    }
}

#define CHOSEN_OF(type, take, block, size, apart, minimum, less)                                               \
    BOUNDED_KERNEL(mul_mat_id_##type, SHARING_WARPS * WARP, 4) { multiply_chosen<take, block, size, apart, minimum, less, 2>(g); }
#define CHOSEN_LEVELS(type, block, size) CHOSEN_OF(type, take_##type, block, size, 1, 0, 0)
PACKED_TYPES(CHOSEN_OF)
LEVEL_TYPES(CHOSEN_LEVELS)
