/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   mul_mat_naive        a warp for each result, in float32: what the others are held to, and what takes any type
   mul_mat_round        rounds rows of src1 to eight bits (rounded.cuh), for
   mul_mat_vec_<type>   some warps for two rows of weights and one row of src1, and
   mul_mat_few_<type>   for two rows of weights and eight of src1, so that weights are read once for all eight; plain types need no rounding
   mul_mat_narrow       rounds rows of src1 to F16 or BF16 (narrow.cuh), for
   mul_mat_tile_<type>  128 by 128 results for a block, in tensor cores (product_tile.cuh); weights of other types become BF16 on the way
   mul_mat_wgmma_<type>_<n>  the same for F16 and BF16 weights on Hopper: 128 by n results at a time (product_wgmma.cuh)
*/
#include "plain_rows.cuh"
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

/* The rows of weights and of src1 that a block multiplies: blocks along x have rows of weights, along y batches of COLUMNS rows of src1
   of one matrix, along z matrices of src1. */
template <int ROWS, int COLUMNS> struct rows_of_block {
    struct share mine;
    const uint8_t *w[ROWS], *x[COLUMNS];
    struct place first; /* of src1 */
    int count;          /* rows of src1, at most COLUMNS */
};

/* Rows that are not there are the last one. */
template <int ROWS, int COLUMNS> DEVICE struct rows_of_block<ROWS, COLUMNS> find_rows(const struct geometry *g)
{
    const struct operand *w = &g->src[0], *x = &g->src[1];
    struct rows_of_block<ROWS, COLUMNS> b = {share_of<ROWS>((int)g->more[0])};
    b.first = {0, (int64_t)blockIdx.y * COLUMNS, 0, 0};
    const uint8_t *weights = w->data;
    if (gridDim.z > 1) { /* divisions of 64 bits are some seventy instructions each */
        b.first.i2 = blockIdx.z % x->ne[2], b.first.i3 = blockIdx.z / x->ne[2];
        weights = weights_for(g, 0, b.first);
    }
    b.count = (int)min64(COLUMNS, x->ne[1] - b.first.i1);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        b.w[r] = weights + min64(b.mine.row + r, w->ne[1] - 1) * w->nb[1];
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
        b.x[c] = at(x, 0, b.first.i1 + (c < b.count ? c : 0), b.first.i2, b.first.i3);
    return b;
}

/* Write the results of a share; what is NaN, by a group that can't be rounded or by weights, its first warp multiplies again. */
template <int ROWS, int COLUMNS>
DEVICE void write_products(const struct geometry *g, const struct rows_of_block<ROWS, COLUMNS> *b, float (*sum)[COLUMNS], bool again)
{
    const struct operand *w = &g->src[0];
    int lane = threadIdx.x % WARP;
    uint32_t odd = 0; /* a bit for each */
    add_shares<ROWS * COLUMNS>(&b->mine, sum[0]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            if (b->mine.thread == 0 && c < b->count && b->mine.row + r < w->ne[1]) {
                *(float *)at(&g->dst, b->mine.row + r, b->first.i1 + c, b->first.i2, b->first.i3) = sum[r][c];
                odd |= (uint32_t)isnan(sum[r][c]) << (r * COLUMNS + c);
            }
    odd = again ? __shfl_sync(ALL, odd, 0) : 0;
    for (int n = 0; odd >> n; n++) {
        if (!(odd >> n & 1))
            continue;
        int64_t i = b->mine.row + n / COLUMNS, j = b->first.i1 + n % COLUMNS;
        const uint8_t *weights = b->w[0] + n / COLUMNS * w->nb[1], *x = at(&g->src[1], 0, j, b->first.i2, b->first.i3);
        float plain = warp_sum(multiply_plain(w->type, weights, x, w->ne[0], lane, WARP));
        if (lane == 0)
            *(float *)at(&g->dst, i, j, b->first.i2, b->first.i3) = plain;
    }
}

/* more[0]: warps for ROWS rows of weights. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int APART, bool MINIMUM, int LESS, int ROWS, int COLUMNS>
DEVICE void multiply_rows(const struct geometry &g)
{
    DYNAMIC_SHARED(memory);
    const struct operand *w = &g.src[0];
    if (*g.outcome)
        return;
    struct rows_of_block<ROWS, COLUMNS> b = find_rows<ROWS, COLUMNS>(&g);
    int64_t first = (int64_t)blockIdx.z * g.src[1].ne[1] + b.first.i1;
    struct rounded rows[COLUMNS];
    float sum[ROWS][COLUMNS] = {};
#pragma unroll
    for (int c = 0; c < COLUMNS; c++)
        rows[c] = rounded_at(&g, first + (c < b.count ? c : 0));
    if (b.mine.row < w->ne[1])
        multiply_rounded<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, COLUMNS>(w, b.w, &b.mine, rows, memory, sum);
    write_products<ROWS, COLUMNS>(&g, &b, sum, true);
}

#define ROWS_OF(type, take, block, size, apart, minimum, less)                                                 \
    BOUNDED_KERNEL(mul_mat_vec_##type, SHARING_WARPS * WARP, 4) { multiply_rows<take, block, size, apart, minimum, less, 2, 1>(g); }            \
    BOUNDED_KERNEL(mul_mat_few_##type, SHARING_WARPS * WARP, 2) { multiply_rows<take, block, size, apart, minimum, less, 2, 8>(g); }
#define LEVELS_OF(type, block, size) ROWS_OF(type, take_##type, block, size, 1, 0, 0)
PACKED_TYPES(ROWS_OF)
LEVEL_TYPES(LEVELS_OF)

/* The same for plain types, as they are. */
template <eight_plain_of eight, int ROWS, int COLUMNS> DEVICE void multiply_plain_rows(const struct geometry &g)
{
    const struct operand *w = &g.src[0];
    if (*g.outcome)
        return;
    struct rows_of_block<ROWS, COLUMNS> b = find_rows<ROWS, COLUMNS>(&g);
    float sum[ROWS][COLUMNS] = {};
    if (w->ne[0] % 8 == 0 && rows_are_aligned(w) && rows_are_aligned(&g.src[1]))
        multiply_eights<eight, ROWS, COLUMNS>(w, b.w, b.x, (int)(w->ne[0] / 8), b.mine.thread, b.mine.threads, sum);
    else
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                sum[r][c] = c >= b.count ? 0 : multiply_plain(w->type, b.w[r], b.x[c], w->ne[0], b.mine.thread, b.mine.threads);
    write_products<ROWS, COLUMNS>(&g, &b, sum, false);
}

#define PLAIN_ROWS(type)                                                       \
    KERNEL(mul_mat_vec_##type) { multiply_plain_rows<eight_##type, 2, 1>(g); } \
    KERNEL(mul_mat_few_##type) { multiply_plain_rows<eight_##type, 2, 8>(g); }
PLAIN_ROWS(f32)
PLAIN_ROWS(f16)
PLAIN_ROWS(bf16)

/* --------------------------------------------------------------------------------------------------------- tensor cores */

KERNEL(mul_mat_narrow) { narrow_rows(&g); }

#define TILE_KERNEL(type) BOUNDED_KERNEL(mul_mat_tile_##type, PRODUCT_THREADS, 2)
TILE_KERNEL(f16) { multiply_tiles<copied_weights<true>>(g); }
TILE_KERNEL(bf16) { multiply_tiles<copied_weights<false>>(g); }
TILE_KERNEL(other) { multiply_tiles<other_weights>(g); }
#define TILES_OF(type, taken, block, size, ...) TILE_KERNEL(type) { multiply_tiles<packed_weights<take_##type, block, size>>(g); }
PACKED_TYPES(TILES_OF)

/* 256 rows of weights to a tile read shared memory the least for what they multiply; 128 give more blocks work. */
#define WGMMA_KERNEL(type, n) MAPPED_KERNEL(mul_mat_wgmma_##type##_##n, WGMMA_THREADS)
WGMMA_KERNEL(f16, 256) { multiply_mapped<256, true>(m); }
WGMMA_KERNEL(f16, 128) { multiply_mapped<128, true>(m); }
WGMMA_KERNEL(bf16, 256) { multiply_mapped<256, false>(m); }
WGMMA_KERNEL(bf16, 128) { multiply_mapped<128, false>(m); }
