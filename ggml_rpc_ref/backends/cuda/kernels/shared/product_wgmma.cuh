/* MUL_MAT for many rows of src1 on Hopper: F16 or BF16 weights, straight from their tensor, by tensor maps and warpgroups.

   A tile of results has 128 rows of src1 (A) and N rows of weights (B). Two warpgroups have 64 rows of src1 each; one thread of a
   further warp has the boxes of both sides brought to shared memory, 64 elements of each row at a time, PRODUCT_RING of these stages in
   a ring:

       full[stage]    over when both boxes are there: one arrival, which announces their bytes
       empty[stage]   over when all warps of the warpgroups have used the stage: an arrival of each

   As many blocks as there are multiprocessors compute tiles in turn; the ring goes on from one tile to the next, so that the first boxes
   of a tile come while the results of the one before it are stored. */
#pragma once
#include "narrow.cuh"
#include "wgmma.cuh"

#define WARPGROUP (4 * WARP)
#define PRODUCT_GROUPS 2
#define PRODUCT_ROWS (PRODUCT_GROUPS * WGMMA_ROWS) /* of src1, in a tile */
#define PRODUCT_RING 4
#define PRODUCT_WIDTH (SWIZZLE_ROW / 2) /* elements of a row in a stage */
#define WGMMA_THREADS (PRODUCT_GROUPS * WARPGROUP + WARP)
#define TOGETHER 16 /* rows of tiles that blocks compute at a time, so that what they share stays in the L2 cache */

/* The shared memory of a block. */
template <int N> struct product_ring {
    struct {
        uint8_t rows[PRODUCT_ROWS * SWIZZLE_ROW], weights[N * SWIZZLE_ROW];
    } stage[PRODUCT_RING];
    uint64_t full[PRODUCT_RING], empty[PRODUCT_RING];
};

/* Where a ring has come to. */
struct ring_place {
    int stage, parity;
};

DEVICE void advance(struct ring_place *p)
{
    if (++p->stage == PRODUCT_RING) {
        p->stage = 0;
        p->parity ^= 1;
    }
}

/* Where a tile begins: a row of weights, a row of src1, a matrix of src1. */
struct product_place {
    int i, j, matrix;
};

/* Tiles follow each other down TOGETHER rows of them, then along the weights. */
template <int N> DEVICE struct product_place product_place_of(const struct geometry *g, int64_t tile)
{
    int64_t across = (g->src[0].ne[1] + N - 1) / N, down = (g->src[1].ne[1] + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    int64_t in_matrix = tile % (across * down), first = in_matrix / (across * TOGETHER) * TOGETHER;
    int64_t in_band = in_matrix - first * across, high = min64(TOGETHER, down - first);
    struct product_place p = {(int)(in_band / high * N), (int)((first + in_band % high) * PRODUCT_ROWS), (int)(tile / (across * down))};
    return p;
}

template <int N> DEVICE int64_t product_tiles(const struct geometry *g)
{
    int64_t across = (g->src[0].ne[1] + N - 1) / N, down = (g->src[1].ne[1] + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
    return across * down * g->src[1].ne[2] * g->src[1].ne[3];
}

DEVICE int product_steps(const struct geometry *g) { return (int)((g->src[0].ne[0] + PRODUCT_WIDTH - 1) / PRODUCT_WIDTH); }

/* Have all boxes brought, as stages become free. One thread. */
template <int N> DEVICE void bring_boxes(const struct mapped_geometry *m, struct product_ring<N> *ring)
{
    const struct operand *w = &m->g.src[0], *x = &m->g.src[1];
    struct ring_place at = {0, 0};
    int steps = product_steps(&m->g), repeat2 = (int)(x->ne[2] / w->ne[2]), repeat3 = (int)(x->ne[3] / w->ne[3]);
    for (int64_t tile = blockIdx.x; tile < product_tiles<N>(&m->g); tile += gridDim.x) {
        struct product_place p = product_place_of<N>(&m->g, tile);
        int w2 = p.matrix % (int)x->ne[2] / repeat2, w3 = p.matrix / (int)x->ne[2] / repeat3;
        for (int step = 0; step < steps; step++) {
            uint64_t *full = &ring->full[at.stage];
            barrier_wait_or_trap(&ring->empty[at.stage], at.parity ^ 1);
            barrier_announce(full, sizeof ring->stage[0]);
            copy_box(&m->rows, ring->stage[at.stage].rows, full, step * PRODUCT_WIDTH, p.j, p.matrix, 0);
            copy_box(&m->weights, ring->stage[at.stage].weights, full, step * PRODUCT_WIDTH, p.i, w2, w3);
            advance(&at);
        }
    }
    for (int stage = 0; stage < PRODUCT_RING; stage++, advance(&at)) /* all have been used; if not, it ends here */
        barrier_wait_or_trap(&ring->empty[at.stage], at.parity ^ 1);
}

/* A warpgroup's results of a tile. */
template <int N> DEVICE void store_products(const struct geometry *g, struct product_place p, float (&d)[N / 2])
{
    const struct operand *dst = &g->dst;
    int lane = threadIdx.x % WARP;
    int64_t j0 = p.j + threadIdx.x / WARP * 16 + lane / 4, i0 = p.i + lane % 4 * 2, rows = g->src[1].ne[1], length = g->src[0].ne[1];
    bool pairs = (((uint64_t)dst->data | (uint64_t)dst->nb[1] | (uint64_t)dst->nb[2] | (uint64_t)dst->nb[3]) & 7) == 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int64_t j = j0 + 8 * r;
        if (j >= rows)
            continue;
        struct widening wide = widening_of(narrow_exponents(g)[p.matrix * rows + j]);
        uint8_t *to = at(dst, i0, j, p.matrix % g->src[1].ne[2], p.matrix / g->src[1].ne[2]);
#pragma unroll
        for (int n = 0; n < N / 8; n++) {
            float low = widened(d[4 * n + 2 * r], wide), high = widened(d[4 * n + 2 * r + 1], wide);
            if (pairs && i0 + 8 * n + 1 < length) {
                *(float2 *)(to + 32 * n) = {low, high};
            } else {
                if (i0 + 8 * n < length)
                    *(float *)(to + 32 * n) = low;
                if (i0 + 8 * n + 1 < length)
                    *(float *)(to + 32 * n + 4) = high;
            }
        }
    }
}

/* What the two warpgroups do. */
template <int N, bool F16> DEVICE void multiply_boxes(const struct geometry *g, struct product_ring<N> *ring)
{
    struct ring_place at = {0, 0};
    int steps = product_steps(g), group = threadIdx.x / WARPGROUP;
    bool leads = threadIdx.x % WARP == 0;
    float d[N / 2];
    for (int64_t tile = blockIdx.x; tile < product_tiles<N>(g); tile += gridDim.x) {
        int before = 0;
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            d[i] = 0;
        for (int step = 0; step < steps; step++) {
            uint64_t a = operand_at(shared_address(ring->stage[at.stage].rows) + group * WGMMA_ROWS * SWIZZLE_ROW);
            uint64_t b = operand_at(shared_address(ring->stage[at.stage].weights));
            barrier_wait(&ring->full[at.stage], at.parity);
            begin_products<N>(d);
#pragma unroll
            for (int k = 0; k < PRODUCT_WIDTH; k += WGMMA_DEPTH)
                add_products<N, F16>(d, further(a, 2 * k), further(b, 2 * k));
            close_products();
            wait_for_products<N, 1>(d);
            if (step > 0 && leads)
                barrier_arrive(&ring->empty[before]); /* its products are there, so it has been read */
            before = at.stage;
            advance(&at);
        }
        wait_for_products<N, 0>(d);
        if (leads)
            barrier_arrive(&ring->empty[before]);
        store_products<N>(g, product_place_of<N>(g, tile), d);
    }
}

/* Blocks along x: tiles, in turn. A ring, and up to SWIZZLE_EIGHT bytes before it, in dynamic shared memory. */
template <int N, bool F16> DEVICE void multiply_mapped(const struct mapped_geometry &m)
{
    DYNAMIC_SHARED(memory);
    uint32_t beyond = shared_address(memory) % SWIZZLE_EIGHT;
    struct product_ring<N> *ring = (struct product_ring<N> *)(memory + (beyond ? SWIZZLE_EIGHT - beyond : 0));
    if (*m.g.outcome)
        return;
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < PRODUCT_RING; stage++) {
            barrier_init(&ring->full[stage], 1);
            barrier_init(&ring->empty[stage], PRODUCT_GROUPS * WARPGROUP / WARP);
        }
        barriers_are_made();
    }
    __syncthreads(); /* all threads see the barriers */
    if (threadIdx.x < PRODUCT_GROUPS * WARPGROUP)
        multiply_boxes<N, F16>(&m.g, ring);
    else if (threadIdx.x == PRODUCT_GROUPS * WARPGROUP)
        bring_boxes<N>(&m, ring);
}
