/* MUL_MAT for many rows of src1: 128 rows of weights by 128 rows of src1 for a block, in tensor cores (mma.cuh).

   Both sides come to shared memory 32 elements of each row at a time, two such stages ahead of the one that is multiplied: by copies
   that go on beside the products (async.cuh) where they are 16-bit numbers already; weights of other types are unpacked on the way,
   loaded before a stage is multiplied and stored behind it. Eight warps have 64 by 32 results each. */
#pragma once
#include "async.cuh"
#include "eights.cuh"
#include "mma.cuh"
#include "narrow.cuh"

#define PRODUCT_TILE 128    /* rows of weights, and rows of src1, of a block */
#define PRODUCT_DEPTH 32    /* elements of each in a stage; a row of src1 has whole stages (NARROW_UNIT) */
#define PRODUCT_STAGES 3    /* 16 KiB each */
#define PRODUCT_THREADS 256

struct product_stage {
    uint16_t weights[PRODUCT_TILE * PRODUCT_DEPTH], rows[PRODUCT_TILE * PRODUCT_DEPTH];
};

/* Rows of weights, or of src1, that a block multiplies. */
struct product_side {
    const uint8_t *data; /* the first of them */
    int64_t stride, length;
    int64_t count;
    int32_t type;
    bool whole; /* all begin at multiples of 16 bytes */
};

/* Where eight elements of a row lie. Pieces of 16 bytes change places within a row, so that those of eight rows that follow each
   other, which load_matrices reads together, lie in different banks. */
DEVICE uint16_t *tile_piece(uint16_t *tile, int row, int piece) { return tile + row * PRODUCT_DEPTH + (piece ^ row / 2 % 4) * 8; }

/* Begin to bring a stage of rows of 16-bit numbers; zeros where there are none. */
DEVICE void begin_pieces(const struct product_side *side, int first, uint16_t *tile)
{
#pragma unroll
    for (int turn = 0; turn < PRODUCT_TILE * PRODUCT_DEPTH / 8 / PRODUCT_THREADS; turn++) {
        int i = threadIdx.x + turn * PRODUCT_THREADS, row = i / (PRODUCT_DEPTH / 8), piece = i % (PRODUCT_DEPTH / 8);
        int64_t element = first + 8 * piece;
        const uint8_t *from = side->data + row * side->stride + 2 * element;
        uint16_t *to = tile_piece(tile, row, piece);
        if (row >= side->count || element >= side->length)
            *(uint4 *)to = {0, 0, 0, 0};
        else if (side->whole && element + 8 <= side->length)
            copy_later(to, from);
        else
            for (int k = 0; k < 8; k++)
                to[k] = element + k < side->length ? ((const uint16_t *)from)[k] : 0;
    }
}

/* Weights that are 16-bit numbers of the type that is multiplied. */
template <bool F16> struct copied_weights {
    static constexpr bool half = F16;
    __device__ void begin(const struct product_side *side, int first, uint16_t *tile) { begin_pieces(side, first, tile); }
    __device__ void end(const struct product_side *, int, uint16_t *) {}
};

/* Sixteen numbers of a row, as BF16, to where they belong: each thread has half a row of a stage. */
DEVICE void store_sixteen(const float *x, uint16_t *tile)
{
    int row = threadIdx.x / 2, piece = threadIdx.x % 2 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float *of = x + 8 * i;
        *(uint4 *)tile_piece(tile, row, piece + i) =
            {two_bf16(of[0], of[1]), two_bf16(of[2], of[3]), two_bf16(of[4], of[5]), two_bf16(of[6], of[7])};
    }
}

/* Weights in blocks with a `take` (packed.cuh). */
template <struct sixteen take(const uint8_t *, int), int BLOCK, int SIZE> struct packed_weights {
    static constexpr bool half = false;
    struct sixteen taken;
    __device__ void begin(const struct product_side *side, int first, uint16_t *)
    {
        int row = threadIdx.x / 2, unit = first / 16 + threadIdx.x % 2;
        taken = {{0, 0, 0, 0}, 0, 0};
        if (row < side->count)
            taken = take(side->data + row * side->stride + (int64_t)(unit / (BLOCK / 16)) * SIZE, unit % (BLOCK / 16));
    }
    __device__ void end(const struct product_side *, int, uint16_t *tile)
    {
        float x[16];
        scale_eight((uint32_t)taken.level[0], (uint32_t)taken.level[1], taken.scale, taken.minimum, x);
        scale_eight((uint32_t)taken.level[2], (uint32_t)taken.level[3], taken.scale, taken.minimum, x + 8);
        store_sixteen(x, tile);
    }
};

/* Weights of any type, one by one. */
struct other_weights {
    static constexpr bool half = false;
    __device__ void begin(const struct product_side *, int, uint16_t *) {}
    __device__ void end(const struct product_side *side, int first, uint16_t *tile)
    {
        int row = threadIdx.x / 2, part = threadIdx.x % 2 * 16;
        const uint8_t *from = side->data + row * side->stride;
        for (int i = 0; i < 16; i++) {
            int64_t k = first + part + i;
            float w = row < side->count && k < side->length ? element(side->type, from, k) : 0;
            tile_piece(tile, row, (part + i) / 8)[i % 8] = to_finite_bf16(w);
        }
    }
};

/* A warp's share of the products of a stage: 64 rows of weights from wi on, 32 rows of src1 from wj on. */
template <bool F16> DEVICE void multiply_stage(struct product_stage *stage, int wi, int wj, float d[4][4][4])
{
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < PRODUCT_DEPTH / 16; step++) {
        uint32_t a[4][4], b[2][4];
#pragma unroll
        for (int m = 0; m < 4; m++)
            load_matrices(a[m], tile_piece(stage->weights, wi + 16 * m + lane % 16, 2 * step + lane / 16));
#pragma unroll
        for (int n = 0; n < 2; n++) /* rows of two fragments, each in two halves of eight elements */
            load_matrices(b[n], tile_piece(stage->rows, wj + 16 * n + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
            for (int n = 0; n < 4; n++)
                F16 ? mma_f16(d[m][n], a[m], b[n / 2] + n % 2 * 2) : mma_bf16(d[m][n], a[m], b[n / 2] + n % 2 * 2);
    }
}

/* Blocks along x: rows of weights; along y: rows of src1; along z: matrices of src1. PRODUCT_STAGES stages of dynamic shared memory. */
template <class WEIGHTS> DEVICE void multiply_tiles(const struct geometry &g)
{
    DYNAMIC_SHARED(memory);
    struct product_stage *stages = (struct product_stage *)memory;
    const struct operand *w = &g.src[0], *x = &g.src[1];
    struct place p = {0, 0, blockIdx.z % x->ne[2], blockIdx.z / x->ne[2]};
    int64_t i0 = (int64_t)blockIdx.x * PRODUCT_TILE, j0 = (int64_t)blockIdx.y * PRODUCT_TILE, row0 = blockIdx.z * x->ne[1] + j0;
    struct product_side weights = {weights_for(&g, i0, p), w->nb[1], w->ne[0], w->ne[1] - i0, w->type, rows_are_aligned(w)};
    struct product_side rows = {(const uint8_t *)narrow_row(&g, row0), 2 * narrow_length(&g), narrow_length(&g), x->ne[1] - j0, 0, true};
    int lane = threadIdx.x % WARP, wi = threadIdx.x / WARP % 2 * 64, wj = threadIdx.x / WARP / 2 * 32;
    int steps = (int)(narrow_length(&g) / PRODUCT_DEPTH), stage = 0, free_stage = PRODUCT_STAGES - 1;
    bool works = wi < weights.count && wj < rows.count;
    float d[4][4][4] = {};
    WEIGHTS own;
    if (*g.outcome)
        return;
    for (int step = 0; step < PRODUCT_STAGES - 1; step++) {
        if (step < steps) {
            own.begin(&weights, step * PRODUCT_DEPTH, stages[step].weights);
            begin_pieces(&rows, step * PRODUCT_DEPTH, stages[step].rows);
            own.end(&weights, step * PRODUCT_DEPTH, stages[step].weights);
        }
        close_group();
    }
    for (int step = 0; step < steps; step++) {
        int next = step + PRODUCT_STAGES - 1;
        struct product_stage *to = &stages[free_stage];
        wait_for_groups<PRODUCT_STAGES - 2>();
        __syncthreads(); /* this stage is there; the one before has been used, and is filled again */
        if (next < steps) {
            own.begin(&weights, next * PRODUCT_DEPTH, to->weights);
            begin_pieces(&rows, next * PRODUCT_DEPTH, to->rows);
        }
        close_group();
        if (works)
            multiply_stage<WEIGHTS::half>(&stages[stage], wi, wj, d);
        if (next < steps)
            own.end(&weights, next * PRODUCT_DEPTH, to->weights);
        free_stage = stage;
        stage = stage + 1 < PRODUCT_STAGES ? stage + 1 : 0;
    }
    if (!works)
        return;
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            int64_t j = wj + 8 * n + lane % 4 * 2 + c;
            if (j >= rows.count)
                continue;
            uint8_t *to = at(&g.dst, i0 + wi + lane / 4, j0 + j, p.i2, p.i3);
            struct widening wide = widening_of(narrow_exponents(&g)[row0 + j]);
#pragma unroll
            for (int m = 0; m < 4; m++)
#pragma unroll
                for (int r = 0; r < 2; r++)
                    if (wi + 16 * m + 8 * r + lane / 4 < weights.count)
                        *(float *)(to + (16 * m + 8 * r) * g.dst.nb[0]) = widened(d[m][n][2 * r + c], wide);
        }
}
