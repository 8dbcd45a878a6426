/* Products with rows of src1 that are rounded to eight bits first, as upstream does: integers of one instruction, four at a time.

   A row is rounded in groups of 32, each with its own scale; in scratch memory it has k levels, a scale for each 32 of them, the
   sum of levels times scale for each 16, and a word that says whether it can't be rounded: where it has a NaN, an infinity, or
   numbers too small to divide by. Such a row is multiplied as it is. */
#pragma once
#include "packed_levels.cuh"

/* A rounded row. */
struct rounded {
    const int8_t *level;
    const float *scale, *sum;
};

/* A multiple of 16 bytes, so that levels are loaded sixteen at a time. */
DEVICE int64_t rounded_size(int64_t k) { return (k + k / 32 * 4 + k / 16 * 4 + 15) / 16 * 16; }

DEVICE struct rounded rounded_at(const struct geometry *g, int64_t row)
{
    int64_t k = g->src[1].ne[0];
    const uint8_t *begin = g->scratch + row * rounded_size(k);
    struct rounded r = {(const int8_t *)begin, (const float *)(begin + k), (const float *)(begin + k + k / 32 * 4)};
    return r;
}

/* One word for each row, behind all of them. */
DEVICE int32_t *strange_rows(const struct geometry *g)
{
    return (int32_t *)(g->scratch + rows_of(&g->src[1]) * rounded_size(g->src[1].ne[0]));
}

/* A block rounds a row; a warp one group of 32 at a time. */
DEVICE void round_rows(const struct geometry *node)
{
    const struct geometry &g = *node;
    int64_t k = g.src[1].ne[0];
    int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    EACH_ROW(row, rows_of(&g.src[1])) {
        const uint8_t *x = at_place(&g.src[1], place_of_row(&g.src[1], row));
        struct rounded r = rounded_at(&g, row);
        if (threadIdx.x == 0)
            strange_rows(&g)[row] = 0;
        __syncthreads();
        for (int64_t group = threadIdx.x / WARP; group < k / WARP; group += warps) {
            float v = f32_at(x + 4 * (group * WARP + lane)), most = warp_max(fabsf(v)), factor = most != 0 ? 127.0f / most : 0;
            bool strange = __any_sync(ALL, !(fabsf(v) < INFINITY) || !(factor < INFINITY));
            int level = strange ? 0 : (int)rintf(v * factor);
            float scale = most / 127.0f;
            ((int8_t *)r.level)[group * WARP + lane] = (int8_t)level;
            int sum = level;
            for (int step = 8; step; step /= 2)
                sum += __shfl_xor_sync(ALL, sum, step);
            if (lane % 16 == 0)
                ((float *)r.sum)[group * 2 + lane / 16] = scale * sum;
            if (lane == 0) {
                ((float *)r.scale)[group] = scale;
                if (strange)
                    strange_rows(&g)[row] = 1; /* several may, and write the same */
            }
        }
        __syncthreads();
    }
}

/* This thread's share, of `threads`, of the products of a row of weights with rounded rows. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int COLUMNS>
DEVICE void multiply_share(const uint8_t *w, int64_t k, int thread, int threads, const struct rounded *x, float *sum)
{
    for (int64_t unit = thread; unit < k / 16; unit += threads) {
        struct sixteen s = take(w + unit * 16 / BLOCK * SIZE, (int)(unit % (BLOCK / 16)));
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int4 y = *(const int4 *)(x[c].level + 16 * unit);
            int dot = __dp4a(s.level[0], y.x, __dp4a(s.level[1], y.y, __dp4a(s.level[2], y.z, __dp4a(s.level[3], y.w, 0))));
            sum[c] = fmaf(s.scale * x[c].scale[unit / 2], (float)dot, sum[c]) - s.minimum * x[c].sum[unit];
        }
    }
}

/* This thread's share of the product with a row as it is. */
DEVICE float multiply_plain(int32_t type, const uint8_t *w, const uint8_t *x, int64_t k, int thread, int threads)
{
    float sum = 0;
    for (int64_t i = thread; i < k; i += threads)
        sum = fmaf(element(type, w, i), f32_at(x + 4 * i), sum);
    return sum;
}

/* For each type with a `take` in packed.cuh: X(name, elements of a block, bytes of a block). */
#define PACKED_TYPES(X)                                                                                                  \
    X(q4_0, 32, 18) X(q4_1, 32, 20) X(q5_0, 32, 22) X(q5_1, 32, 24) X(q8_0, 32, 34) X(iq4_nl, 32, 18)                    \
    X(q2_k, 256, 84) X(q3_k, 256, 110) X(q4_k, 256, 144) X(q5_k, 256, 176) X(q6_k, 256, 210) X(iq4_xs, 256, 136)
/* The same for packed_levels.cuh. */
#define LEVEL_TYPES(X)                                                                                                   \
    X(mxfp4, 32, 17) X(nvfp4, 64, 36) X(q1_0, 128, 18) X(q2_0, 64, 18) X(tq1_0, 256, 54) X(tq2_0, 256, 66)               \
    X(iq2_xxs, 256, 66) X(iq2_xs, 256, 74) X(iq2_s, 256, 82) X(iq3_xxs, 256, 98) X(iq3_s, 256, 110)                      \
    X(iq1_s, 256, 50) X(iq1_m, 256, 56)
