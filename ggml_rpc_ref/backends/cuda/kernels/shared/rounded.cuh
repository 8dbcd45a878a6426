/* Products with rows of src1 that are rounded to eight bits first, as upstream does: integers of one instruction, four at a time.

   A row is rounded in groups of 32, each with its own scale; in scratch memory it has k levels, a scale for each 32 of them, and for each
   16 the sum of levels times scale and the sum itself. A group that can't be rounded, with a NaN, an infinity or numbers too small to
   divide by, has a scale of NaN, so that results which meet it are NaN: those are multiplied again, with the row as it is. */
#pragma once
#include "async.cuh"
#include "packed_levels.cuh"
#include "sharing.cuh"

/* A rounded row. */
struct rounded {
    const int8_t *level;
    const float *scale, *sum;
    const int32_t *levels; /* the sum of sixteen */
};

/* A multiple of 16 bytes, so that levels are loaded sixteen at a time. */
DEVICE int64_t rounded_size(int64_t k) { return (k + k / 32 * 4 + k / 16 * 8 + 15) / 16 * 16; }

DEVICE struct rounded rounded_at(const struct geometry *g, int64_t row)
{
    int64_t k = g->src[1].ne[0];
    const uint8_t *begin = g->scratch + row * rounded_size(k);
    const float *scale = (const float *)(begin + k), *sum = scale + k / 32;
    struct rounded r = {(const int8_t *)begin, scale, sum, (const int32_t *)(sum + k / 16)};
    return r;
}

/* A warp rounds a group at a time. */
DEVICE void round_rows(const struct geometry *node)
{
    const struct geometry &g = *node;
    const struct operand *x = &g.src[1];
    int lane = threadIdx.x % WARP;
    /* 32 bits: the quotients of longer numbers take several times as long as the rest. There are no more groups: each has 44 bytes of
       scratch memory, of which a plan gets no more than a GPU has */
    uint32_t groups = (uint32_t)(x->ne[0] / WARP), count = (uint32_t)rows_of(x) * groups, warps = gridDim.x * (blockDim.x / WARP);
    for (uint32_t i = *g.outcome ? count : blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP; i < count; i += warps) {
        uint32_t row = i / groups, group = i % groups;
        struct rounded r = rounded_at(&g, row);
        float v = f32_at(at_place(x, place_of_row(x, row)) + 4 * (group * WARP + lane));
        float most = warp_max(fabsf(v)), factor = most != 0 ? 127.0f / most : 0;
        bool strange = __any_sync(ALL, !(fabsf(v) < INFINITY) || !(factor < INFINITY));
        int level = strange ? 0 : (int)rintf(v * factor);
        float scale = strange ? NAN : most / 127.0f;
        ((int8_t *)r.level)[group * WARP + lane] = (int8_t)level;
        int sum = level;
        for (int step = 8; step; step /= 2)
            sum += __shfl_xor_sync(ALL, sum, step);
        if (lane % 16 == 0) {
            ((float *)r.sum)[group * 2 + lane / 16] = scale * sum;
            ((int32_t *)r.levels)[group * 2 + lane / 16] = sum;
        }
        if (lane == 0)
            ((float *)r.scale)[group] = scale;
    }
}

/* The sum of sixteen products; `sum`: that of levels times what is still to be taken from each weight. */
DEVICE int dot(const struct sixteen *s, int4 y, int sum)
{
    return __dp4a(s->level[0], y.x, __dp4a(s->level[1], y.y, __dp4a(s->level[2], y.z, __dp4a(s->level[3], y.w, -sum))));
}

/* This thread's share, of `threads`, of the products of ROWS rows of weights with COLUMNS rounded rows.

   A step takes two sixteens that lie APART sixteens from each other, for which the same bytes are loaded. Threads are a multiple of the
   steps that a block has, so a thread is at the same place of each block that it meets, and steps on by a constant. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int APART, bool MINIMUM, int LESS, int ROWS, int COLUMNS, int AT_ONCE>
DEVICE void multiply_share(const uint8_t *const *w, int k, int thread, int threads, const struct rounded *x, float (*sum)[COLUMNS])
{
    constexpr int STEPS = BLOCK / 32;
    /* unsigned, so that the compiler sees which bits of a place are zero */
    uint32_t step = (uint32_t)thread % STEPS, place = step / APART * (2 * APART) + step % APART, stride = (uint32_t)threads / STEPS;
    uint32_t block = (uint32_t)thread / STEPS * SIZE, at = (uint32_t)thread / STEPS * (BLOCK / 16) + place;
#pragma unroll(AT_ONCE)
    for (int n = thread; n < k / 32; n += threads) {
        struct sixteen s[ROWS][2];
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if constexpr (take == take_q4_k) {
                pair_q4_k(w[r] + block, (int)place, s[r]);
            } else if constexpr (take == take_q5_k) {
                pair_q5_k(w[r] + block, (int)place, s[r]);
            } else {
                s[r][0] = take(w[r] + block, (int)place);
                s[r][1] = take(w[r] + block, (int)(place | APART)); /* a bit that is zero */
            }
        }
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int4 y = *(const int4 *)(x[c].level + 16 * at), z = *(const int4 *)(x[c].level + 16 * (at + APART));
            float scale = x[c].scale[at / 2], other = APART == 1 ? scale : x[c].scale[(at + APART) / 2];
            int less_y = LESS ? LESS * x[c].levels[at] : 0, less_z = LESS ? LESS * x[c].levels[at + APART] : 0;
            float low = MINIMUM ? x[c].sum[at] : 0, high = MINIMUM ? x[c].sum[at + APART] : 0;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                if (BLOCK == 32) { /* one scale for all of it */
                    sum[r][c] = fmaf(s[r][0].scale * scale, (float)(dot(&s[r][0], y, less_y) + dot(&s[r][1], z, less_z)), sum[r][c]);
                    if (MINIMUM)
                        sum[r][c] = fmaf(-s[r][0].minimum, low + high, sum[r][c]);
                } else {
                    sum[r][c] = fmaf(s[r][0].scale * scale, (float)dot(&s[r][0], y, less_y), sum[r][c]);
                    sum[r][c] = fmaf(s[r][1].scale * other, (float)dot(&s[r][1], z, less_z), sum[r][c]);
                    if (MINIMUM)
                        sum[r][c] = fmaf(-s[r][0].minimum, low, fmaf(-s[r][1].minimum, high, sum[r][c]));
                }
            }
        }
        block += stride * SIZE;
        at += stride * (BLOCK / 16);
    }
}

/* Rows of weights pass through shared memory where they can: a warp brings a piece of them by 16 bytes while it multiplies the one before,
   and so keeps more on its way than registers hold, in the order in which it lies. Each thread then finds its blocks there. */
#define PIECE 2048 /* elements: of every type's, blocks that fill multiples of 16 bytes */

/* What `multiply_share` does, for one of `warps` that take turns with the pieces. `room`: for two pieces of each row. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int APART, bool MINIMUM, int LESS, int ROWS, int COLUMNS>
DEVICE void multiply_pieces(const uint8_t *const *w, int k, int warp, int warps, const struct rounded *x, uint8_t *room, float (*sum)[COLUMNS])
{
    constexpr int BYTES = PIECE / BLOCK * SIZE;
    int lane = threadIdx.x % WARP, row_bytes = k / BLOCK * SIZE, half = 0;
    auto begin = [&](int piece, uint8_t *to) {
        int left = row_bytes - piece * BYTES; /* less than nothing behind the last */
#pragma unroll
        for (int i = 0; i < BYTES; i += 16 * WARP)
            if (i + 16 * lane < BYTES && i + 16 * lane < left)
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    copy_later(to + r * BYTES + i + 16 * lane, w[r] + piece * BYTES + i + 16 * lane);
        close_group();
    };
    begin(warp, room);
    for (int piece = warp; piece * PIECE < k; piece += warps) {
        begin(piece + warps, room + (1 - half) * ROWS * BYTES);
        wait_for_groups<1>();
        __syncwarp(); /* all lanes' copies of this piece are there */
        const uint8_t *at[ROWS];
        struct rounded y[COLUMNS];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            at[r] = room + (half * ROWS + r) * BYTES;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++)
            y[c] = {x[c].level + piece * PIECE, x[c].scale + piece * (PIECE / 32), x[c].sum + piece * (PIECE / 16), x[c].levels + piece * (PIECE / 16)};
        if (int left = k - piece * PIECE; left >= PIECE) /* the same, without counting */
            multiply_share<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, COLUMNS, COLUMNS == 1 ? 2 : 1>(at, PIECE, lane, WARP, y, sum);
        else
            multiply_share<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, COLUMNS, 1>(at, left, lane, WARP, y, sum);
        __syncwarp(); /* it has been used */
        half = 1 - half;
    }
    wait_for_copies();
}

/* The products of a share's rows of weights, whichever way they lie. */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE, int APART, bool MINIMUM, int LESS, int ROWS, int COLUMNS>
DEVICE void multiply_rounded(const struct operand *weights, const uint8_t *const *w, const struct share *mine, const struct rounded *x,
                             uint8_t *memory, float (*sum)[COLUMNS])
{
    int k = (int)weights->ne[0];
#if defined(EMULATED) || __CUDA_ARCH__ >= 800
    if (k / BLOCK * SIZE % 16 == 0 && rows_are_aligned(weights)) {
        uint8_t *room = memory + threadIdx.x / WARP * (2 * ROWS * (PIECE / BLOCK * SIZE));
        multiply_pieces<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, COLUMNS>(w, k, mine->thread / WARP, mine->threads / WARP, x, room, sum);
        return;
    }
#endif
    multiply_share<take, BLOCK, SIZE, APART, MINIMUM, LESS, ROWS, COLUMNS, 1>(w, k, mine->thread, mine->threads, x, sum);
}

/* This thread's share of the product with a row as it is. */
DEVICE float multiply_plain(int32_t type, const uint8_t *w, const uint8_t *x, int64_t k, int thread, int threads)
{
    float sum = 0;
    for (int64_t i = thread; i < k; i += threads)
        sum = fmaf(element(type, w, i), f32_at(x + 4 * i), sum);
    return sum;
}

/* For each type of packed.cuh: X(name, function that takes sixteen, elements of a block, bytes of a block, sixteens between two that share
   bytes, whether there is a minimum, what is still to be taken from each level). */
#define PACKED_TYPES(X)                                                                                                  \
    X(q4_0, raw_q4_0, 32, 18, 1, 0, 8) X(q4_1, take_q4_1, 32, 20, 1, 1, 0) X(q5_0, raw_q5_0, 32, 22, 1, 0, 16)           \
    X(q5_1, take_q5_1, 32, 24, 1, 1, 0) X(q8_0, take_q8_0, 32, 34, 1, 0, 0) X(iq4_nl, take_iq4_nl, 32, 18, 1, 0, 0)      \
    X(q2_k, take_q2_k, 256, 84, 2, 1, 0) X(q3_k, raw_q3_k, 256, 110, 2, 0, 4) X(q4_k, take_q4_k, 256, 144, 2, 1, 0)      \
    X(q5_k, take_q5_k, 256, 176, 2, 1, 0) X(q6_k, raw_q6_k, 256, 210, 4, 0, 32) X(iq4_xs, take_iq4_xs, 256, 136, 1, 0, 0)
/* The same for packed_levels.cuh: X(name, elements of a block, bytes of a block). */
#define LEVEL_TYPES(X)                                                                                                   \
    X(mxfp4, 32, 17) X(nvfp4, 64, 36) X(q1_0, 128, 18) X(q2_0, 64, 18) X(tq1_0, 256, 54) X(tq2_0, 256, 66)               \
    X(iq2_xxs, 256, 66) X(iq2_xs, 256, 74) X(iq2_s, 256, 82) X(iq3_xxs, 256, 98) X(iq3_s, 256, 110)                      \
    X(iq1_s, 256, 50) X(iq1_m, 256, 56)
