/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   mul_mat_naive        a warp for each result, in float32: what the others are held to, and what takes any type
   mul_mat_round        rounds rows of src1 to eight bits (rounded.cuh), for
   mul_mat_vec_<type>   some warps for a row of weights and one row of src1, and
   mul_mat_few_<type>   the same for eight rows of src1, so that weights are read once for all eight
   mul_mat_narrow       rounds rows of src1 to F16 or BF16 (narrow.cuh), for
   mul_mat_tile_<type>  128 by 128 results for a block, in tensor cores (product_tile.cuh); weights of other types become BF16 on the way
   mul_mat_wgmma_<type>_<n>  the same for F16 and BF16 weights on Hopper: 128 by n results at a time (product_wgmma.cuh)
*/
#include "product_tile.cuh"
#include "product_wgmma.cuh"
#include "rounded.cuh"

KERNEL(mul_mat_naive)
{
    const struct operand *w = &g.src[0], *x = &g.src[1];
    int64_t k = w->ne[0];
    int lane = threadIdx.x % WARP;
    int64_t warps = (int64_t)gridDim.x * blockDim.x / WARP, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (*g.outcome)
        return;
    for (int64_t i = first; i < elements_of(&g.dst); i += warps) {
        struct place p = place_of(&g.dst, i);
        const uint8_t *a = weights_for(&g, p.i0, p), *b = at(x, 0, p.i1, p.i2, p.i3);
        float sum = 0;
        for (int64_t n = lane; n < k; n += WARP)
            sum = fmaf(element(w->type, a, n), element(x->type, b, n), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            *(float *)at_place(&g.dst, p) = sum;
    }
}

/* ------------------------------------------------------------------------------------------------- one row, eight rows */

KERNEL(mul_mat_round) { round_rows(&g); }

/* more[0]: warps for a row of weights. Blocks along x: rows of weights; along y: batches of COLUMNS rows of src1 of one matrix;
   along z: matrices of src1. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int COLUMNS> DEVICE void multiply_rows(const struct geometry &g)
{
    __shared__ float part[MOST_WARPS][8];
    const struct operand *w = &g.src[0], *x = &g.src[1];
    int each = (int)g.more[0] * WARP, thread = threadIdx.x % each;
    int64_t i = (int64_t)blockIdx.x * (blockDim.x / each) + threadIdx.x / each, j = (int64_t)blockIdx.y * COLUMNS;
    struct place p = {0, j, blockIdx.z % x->ne[2], blockIdx.z / x->ne[2]};
    bool mine = i < w->ne[1];
    const uint8_t *weights = weights_for(&g, mine ? i : 0, p);
    int64_t row = (int64_t)blockIdx.z * x->ne[1] + j;
    int count = (int)min64(COLUMNS, x->ne[1] - j);
    struct rounded rows[COLUMNS];
    float sum[COLUMNS];
    if (*g.outcome)
        return;
    for (int c = 0; c < COLUMNS; c++) {
        rows[c] = rounded_at(&g, row + (c < count ? c : 0));
        sum[c] = 0;
    }
    if (mine)
        multiply_share<take, BLOCK, SIZE, COLUMNS>(weights, w->ne[0], thread, each, rows, sum);
    for (int c = 0; c < COLUMNS; c++) {
        if (c < count && mine && strange_rows(&g)[row + c])
            sum[c] = multiply_plain(w->type, weights, at(x, 0, j + c, p.i2, p.i3), w->ne[0], thread, each);
        sum[c] = warp_sum(sum[c]);
        if (threadIdx.x % WARP == 0)
            part[threadIdx.x / WARP][c] = sum[c];
    }
    __syncthreads();
    if (mine && thread < count) {
        float total = 0;
        for (int warp = 0; warp < g.more[0]; warp++)
            total += part[threadIdx.x / each * g.more[0] + warp][thread];
        *(float *)at(&g.dst, i, j + thread, p.i2, p.i3) = total;
    }
}

#define ROWS_OF(type, block, size)                                                                   \
    KERNEL(mul_mat_vec_##type) { multiply_rows<take_##type, block, size, 1>(g); }                    \
    KERNEL(mul_mat_few_##type) { multiply_rows<take_##type, block, size, 8>(g); }
PACKED_TYPES(ROWS_OF)
LEVEL_TYPES(ROWS_OF)

/* --------------------------------------------------------------------------------------------------------- tensor cores */

KERNEL(mul_mat_narrow) { narrow_rows(&g); }

#define TILE_KERNEL(type) BOUNDED_KERNEL(mul_mat_tile_##type, PRODUCT_THREADS, 2)
TILE_KERNEL(f16) { multiply_tiles<copied_weights<true>>(g); }
TILE_KERNEL(bf16) { multiply_tiles<copied_weights<false>>(g); }
TILE_KERNEL(other) { multiply_tiles<other_weights>(g); }
#define TILES_OF(type, block, size) TILE_KERNEL(type) { multiply_tiles<packed_weights<take_##type, block, size>>(g); }
PACKED_TYPES(TILES_OF)

/* 256 rows of weights to a tile read shared memory the least for what they multiply; 128 give more blocks work. */
#define WGMMA_KERNEL(type, n) MAPPED_KERNEL(mul_mat_wgmma_##type##_##n, WGMMA_THREADS)
WGMMA_KERNEL(f16, 256) { multiply_mapped<256, true>(m); }
WGMMA_KERNEL(f16, 128) { multiply_mapped<128, true>(m); }
WGMMA_KERNEL(bf16, 256) { multiply_mapped<256, false>(m); }
WGMMA_KERNEL(bf16, 128) { multiply_mapped<128, false>(m); }
