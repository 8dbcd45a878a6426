/* K and V of other types as F16 in scratch memory, for FLASH_ATTN_EXT in tensor cores: rows without gaps, one matrix after the other.

   A matrix is divided by a power of two so that its largest number fits; its exponents stand before the rows. Of a row whose largest number
   is up to 2^24 times smaller than its matrix's, F16 then still has fourteen bits below that number. The first number of a row that is
   smaller still becomes NaN: rows of the result that meet it are computed by themselves (attention_tile.cuh).

   more[3]: bytes of scratch memory before them; K comes first, if it is there. */
#pragma once
#include "attention.cuh"
#include "eights.cuh"
#include "mma.cuh"

#define EXPONENT_THREADS 512
#define HALVES_THREADS 128
#define FINE_ENOUGH -10 /* exponent of a row's largest number, down to which F16 has 14 bits below it */

/* A source as F16, and the exponent of each matrix; NULL: of a source that was F16, which lies as it did. */
struct halves {
    struct operand t;
    int32_t *exponents;
};

DEVICE int64_t matrices_of(const struct operand *t) { return t->ne[2] * t->ne[3]; }
DEVICE int64_t exponent_bytes(const struct operand *t) { return (matrices_of(t) + 3) / 4 * 16; }

DEVICE struct halves halves_of(const struct geometry *g, int slot)
{
    struct halves h = {g->src[slot], NULL};
    if (h.t.type == GGML_TYPE_F16)
        return h;
    uint8_t *p = g->scratch + g->more[3];
    const struct operand *k = &g->src[1];
    if (slot == 2 && k->type != GGML_TYPE_F16)
        p += exponent_bytes(k) + 2 * k->ne[0] * k->ne[1] * matrices_of(k);
    h.exponents = (int32_t *)p;
    h.t.data = p + exponent_bytes(&h.t);
    h.t.type = GGML_TYPE_F16;
    h.t.nb[0] = 2;
    for (int n = 1; n < 4; n++)
        h.t.nb[n] = h.t.nb[n - 1] * h.t.ne[n - 1];
    return h;
}

/* Eight elements of a row of any type. */
DEVICE void eight_of_row(const struct operand *t, int32_t kind, const uint8_t *row, int unit, float *x)
{
#define READ(name, function)                                                                                              \
    case GGML_TYPE_##name: eight_##function(t, row, unit, x); break;
    switch (kind) {
        EIGHT_TYPES(READ)
    default: eight_any(t, row, unit, x);
    }
#undef READ
}

/* The largest of eight numbers that is finite, without its sign, or what was larger before. */
DEVICE float most_of_eight(const float *x, float most)
{
    for (int k = 0; k < 8; k++)
        most = larger(most, fabsf(x[k]) < INFINITY ? fabsf(x[k]) : 0);
    return most;
}

/* more[0]: which source. A block for each matrix: its exponent. */
DEVICE void find_exponents(const struct geometry *node)
{
    __shared__ double part[MOST_WARPS];
    const struct geometry &g = *node;
    const struct operand *t = &g.src[g.more[0]];
    struct halves to = halves_of(&g, (int)g.more[0]);
    int32_t kind = eights_of(t);
    int units = (int)(t->ne[0] / 8);
    EACH_ROW(m, matrices_of(t)) {
        const uint8_t *matrix = at(t, 0, 0, m % t->ne[2], m / t->ne[2]);
        float most = 0;
        SHARE(i, t->ne[1] * units) {
            float x[8];
            eight_of_row(t, kind, matrix + i / units * t->nb[1], (int)(i % units), x);
            most = most_of_eight(x, most);
        }
        most = block_max(most, part);
        int exponent = most > 0 ? ilogbf(most) - 14 : 0;
        if (threadIdx.x == 0)
            to.exponents[m] = exponent < -126 ? -126 : exponent;
    }
}

/* more[0]: which source. A warp for each row. */
DEVICE void write_halves(const struct geometry *node)
{
    const struct geometry &g = *node;
    const struct operand *t = &g.src[g.more[0]];
    struct halves to = halves_of(&g, (int)g.more[0]);
    int32_t kind = eights_of(t);
    int units = (int)(t->ne[0] / 8), lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    EACH_ROW(four, (rows_of(t) + warps - 1) / warps) {
        int64_t row = four * warps + threadIdx.x / WARP;
        if (row >= rows_of(t)) /* a whole warp */
            continue;
        struct place p = place_of_row(t, row);
        uint4 *written = (uint4 *)at_place(&to.t, p);
        int exponent = to.exponents[p.i2 + t->ne[2] * p.i3];
        float most = 0;
        for (int unit = lane; unit < units; unit += WARP) {
            float x[8];
            eight_of_row(t, kind, at_place(t, p), unit, x);
            most = most_of_eight(x, most);
            for (int k = 0; k < 8; k++)
                x[k] = ldexpf(x[k], -exponent);
            written[unit] = {two_halves(x[0], x[1]), two_halves(x[2], x[3]), two_halves(x[4], x[5]), two_halves(x[6], x[7])};
        }
        most = warp_max(most);
        __syncwarp(); /* the first eight are written */
        if (lane == 0 && most > 0 && ilogbf(most) - exponent < FINE_ENOUGH)
            *(uint16_t *)written = 0x7E00;
    }
}
