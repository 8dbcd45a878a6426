/* Rows of src1 as 16-bit numbers in scratch memory, for products in tensor cores.

   A row has its elements, then zeros up to a multiple of NARROW_UNIT; behind all rows there is an exponent for each: what a row's
   products are to be multiplied with is two to the power of it. F16's range is small, so a row is divided by a power of two first. */
#pragma once
#include "blocks.cuh"

#define NARROW_UNIT 32

DEVICE int64_t narrow_length(const struct geometry *g) { return (g->src[1].ne[0] + NARROW_UNIT - 1) / NARROW_UNIT * NARROW_UNIT; }
DEVICE uint16_t *narrow_row(const struct geometry *g, int64_t row) { return (uint16_t *)g->scratch + row * narrow_length(g); }
DEVICE int32_t *narrow_exponents(const struct geometry *g) { return (int32_t *)narrow_row(g, rows_of(&g->src[1])); }

/* BF16 has float32's range but for the last step below infinity. */
DEVICE uint16_t to_finite_bf16(float x)
{
    uint16_t h = to_bf16(x);
    return fabsf(x) < INFINITY && (h & 0x7FFF) == 0x7F80 ? (uint16_t)(h - 1) : h;
}

/* more[0]: 1 for F16, 0 for BF16. A block for each row. */
DEVICE void narrow_rows(const struct geometry *node)
{
    __shared__ double part[MOST_WARPS];
    const struct geometry &g = *node;
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
            narrow_exponents(&g)[row] = exponent;
    }
}

/* Two to the power of an exponent, as two factors that a float32 holds. */
struct widening {
    float first, second;
};

/* Products of F16 are multiples of 2^-48: a first factor of at least 2^-78 leaves all their bits, so they are rounded once. */
DEVICE struct widening widening_of(int exponent)
{
    int first = exponent < -78 ? -78 : exponent;
    struct widening w = {as_float((uint32_t)(first + 127) << 23), as_float((uint32_t)(exponent - first + 127) << 23)};
    return w;
}

DEVICE float widened(float product, struct widening w) { return product * w.first * w.second; }

/* The weights that a row of src1 meets, for the indices of that row. */
DEVICE const uint8_t *weights_for(const struct geometry *g, int64_t i, struct place x)
{
    const struct operand *w = &g->src[0];
    return at(w, 0, i, x.i2 / (g->src[1].ne[2] / w->ne[2]), x.i3 / (g->src[1].ne[3] / w->ne[3]));
}
