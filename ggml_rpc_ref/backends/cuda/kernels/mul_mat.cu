/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   mul_mat_naive        a warp for each result, in float32: what the others are held to, and what takes any type
   mul_mat_round        rounds rows of src1 to eight bits (rounded.cuh), for
   mul_mat_vec_<type>   some warps for a row of weights and one row of src1, and
   mul_mat_few_<type>   the same for eight rows of src1, so that weights are read once for all eight
   mul_mat_narrow       rounds rows of src1 to F16 or BF16, for
   mul_mat_f16, _bf16   64 by 64 results for a block, in tensor cores; weights of any type are turned into that type on the way
*/
#include "mma.cuh"
#include "rounded.cuh"

/* The weights that a row of src1 meets, for the indices of that row. */
DEVICE const uint8_t *weights_for(const struct geometry *g, int64_t i, struct place x)
{
    const struct operand *w = &g->src[0];
    return at(w, 0, i, x.i2 / (g->src[1].ne[2] / w->ne[2]), x.i3 / (g->src[1].ne[3] / w->ne[3]));
}

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

/* --------------------------------------------------------------------------------------------------------- tensor cores */

#define TILE 64  /* rows of weights, and rows of src1, of a block */
#define DEPTH 32 /* elements of each at a time */
#define GAP 8    /* between rows in shared memory, so that the lanes of a warp meet different banks */

/* Rows of src1 as 16-bit numbers, DEPTH at a time, zeros behind the last; then a factor for each row. */
DEVICE int64_t narrow_length(const struct geometry *g) { return (g->src[1].ne[0] + DEPTH - 1) / DEPTH * DEPTH; }
DEVICE uint16_t *narrow_row(const struct geometry *g, int64_t row) { return (uint16_t *)g->scratch + row * narrow_length(g); }
DEVICE float *narrow_factors(const struct geometry *g) { return (float *)narrow_row(g, rows_of(&g->src[1])); }

/* BF16 has float32's range but for the last step below infinity. */
DEVICE uint16_t to_finite_bf16(float x)
{
    uint16_t h = to_bf16(x);
    return fabsf(x) < INFINITY && (h & 0x7FFF) == 0x7F80 ? (uint16_t)(h - 1) : h;
}

/* more[0]: 1 for F16, whose range is small: a row is divided by a power of two, so that its largest number fits. */
KERNEL(mul_mat_narrow)
{
    __shared__ double part[MOST_WARPS];
    const struct operand *x = &g.src[1];
    bool half = g.more[0] != 0;
    EACH_ROW(row, rows_of(x)) {
        const uint8_t *from = at_place(x, place_of_row(x, row));
        uint16_t *to = narrow_row(&g, row);
        float most = 0;
        SHARE(i, x->ne[0]) {
            float v = fabsf(f32_at(from + 4 * i));
            most = larger(most, v < INFINITY ? v : 0);
        }
        most = block_max(most, part);
        int exponent = half && most > 0 ? ilogbf(most) - 14 : 0;
        SHARE(i, narrow_length(&g)) {
            float v = i < x->ne[0] ? f32_at(from + 4 * i) : 0;
            to[i] = half ? to_half(ldexpf(v, -exponent)) : to_finite_bf16(v);
        }
        if (threadIdx.x == 0)
            narrow_factors(&g)[row] = (float)exponent;
    }
}

/* Sixteen weights from `first` on, as 16-bit numbers; zeros behind the end of the row. */
DEVICE void narrow_weights(int32_t type, const uint8_t *row, int64_t first, int64_t k, bool half, uint16_t *to)
{
    for (int i = 0; i < 16; i++) {
        float w = first + i < k ? element(type, row, first + i) : 0;
        to[i] = half ? to_half(w) : to_finite_bf16(w);
    }
}

/* Blocks along x: rows of weights; along y: rows of src1; along z: matrices of src1. 128 threads, four warps of 32 by 32 each. */
template <bool HALF> DEVICE void multiply_tiles(const struct geometry &g)
{
    __shared__ uint16_t a[TILE][DEPTH + GAP], b[TILE][DEPTH + GAP];
    const struct operand *w = &g.src[0], *x = &g.src[1];
    struct place p = {0, 0, blockIdx.z % x->ne[2], blockIdx.z / x->ne[2]};
    int64_t i0 = (int64_t)blockIdx.x * TILE, j0 = (int64_t)blockIdx.y * TILE, k = w->ne[0], row0 = (int64_t)blockIdx.z * x->ne[1];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, group = lane / 4, t = lane % 4;
    int wi = warp / 2 * 32, wj = warp % 2 * 32;
    float d[2][4][4] = {};
    if (*g.outcome)
        return;
    for (int64_t first = 0; first < k; first += DEPTH) {
        int r = threadIdx.x / 2, part = threadIdx.x % 2 * 16;
        if (i0 + r < w->ne[1])
            narrow_weights(w->type, weights_for(&g, i0 + r, p), first + part, k, HALF, &a[r][part]);
        else
            memset(&a[r][part], 0, 32);
        if (j0 + r < x->ne[1])
            memcpy(&b[r][part], narrow_row(&g, row0 + j0 + r) + first + part, 32);
        else
            memset(&b[r][part], 0, 32);
        __syncthreads();
#pragma unroll
        for (int step = 0; step < DEPTH; step += 16)
#pragma unroll
            for (int m = 0; m < 2; m++) {
                uint32_t fa[4];
                for (int q = 0; q < 4; q++)
                    fa[q] = *(const uint32_t *)&a[wi + 16 * m + group + 8 * (q % 2)][step + 2 * t + 8 * (q / 2)];
#pragma unroll
                for (int n = 0; n < 4; n++) {
                    uint32_t fb[2];
                    for (int q = 0; q < 2; q++)
                        fb[q] = *(const uint32_t *)&b[wj + 8 * n + group][step + 2 * t + 8 * q];
                    HALF ? mma_f16(d[m][n], fa, fb) : mma_bf16(d[m][n], fa, fb);
                }
            }
        __syncthreads();
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 4; n++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int64_t i = i0 + wi + 16 * m + group + 8 * (q / 2), j = j0 + wj + 8 * n + 2 * t + q % 2;
                if (i < w->ne[1] && j < x->ne[1])
                    *(float *)at(&g.dst, i, j, p.i2, p.i3) = ldexpf(d[m][n][q], (int)narrow_factors(&g)[row0 + j]);
            }
}

KERNEL(mul_mat_f16) { multiply_tiles<true>(g); }
KERNEL(mul_mat_bf16) { multiply_tiles<false>(g); }
