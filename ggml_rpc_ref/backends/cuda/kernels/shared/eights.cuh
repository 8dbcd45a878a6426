/* Eight elements of a row at a time as float32, loaded as wide as they lie: by 16 bytes where the type is a plain one.

   Types without a function of their own here, and rows that begin between multiples of 16 bytes, are read element by element. */
#pragma once
#include "packed.cuh"

/* Byte k of four that had 128 added, as the signed number it was: put behind 2^23, which is then taken away with the 128. An
   instruction that turns an integer into a float has a quarter of the rate of these two. */
DEVICE float signed_byte(uint32_t raised, int k) { return as_float(0x4B000000u | (raised >> 8 * k & 0xFF)) - 8388736.0f; }

/* Eight signed bytes times a scale, minus a minimum. */
DEVICE void scale_eight(uint32_t low, uint32_t high, float scale, float minimum, float *x)
{
    for (int k = 0; k < 4; k++) {
        x[k] = fmaf(signed_byte(low ^ 0x80808080u, k), scale, -minimum);
        x[4 + k] = fmaf(signed_byte(high ^ 0x80808080u, k), scale, -minimum);
    }
}

DEVICE void eight_f32(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const float4 *p = (const float4 *)(row + 32 * unit);
    float4 a = p[0], b = p[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

DEVICE void eight_f16(const struct operand *, const uint8_t *row, int unit, float *x)
{
    uint4 words = *(const uint4 *)(row + 16 * unit);
    const uint32_t *word = &words.x;
    for (int i = 0; i < 4; i++) {
        x[2 * i] = from_half((uint16_t)word[i]);
        x[2 * i + 1] = from_half((uint16_t)(word[i] >> 16));
    }
}

DEVICE void eight_bf16(const struct operand *, const uint8_t *row, int unit, float *x)
{
    uint4 words = *(const uint4 *)(row + 16 * unit);
    const uint32_t *word = &words.x;
    for (int i = 0; i < 4; i++) {
        x[2 * i] = as_float(word[i] << 16);
        x[2 * i + 1] = as_float(word[i] & 0xFFFF0000u);
    }
}

DEVICE void eight_q8_0(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 34, *p = b + 2 + unit % 4 * 8;
    scale_eight(pair_at(p), pair_at(p + 4), half_at(b), 0, x);
}

/* Eight levels as two words of four bytes. */
struct eight_levels {
    uint32_t first, second;
};

/* Unit 0 to 3 of a block of 32: the low or the high halves of eight bytes, which begin at an even address. */
DEVICE struct eight_levels eight_halves(const uint8_t *bytes, int unit)
{
    const uint8_t *p = bytes + unit % 2 * 8;
    int high = 4 * (unit / 2 % 2);
    return {pair_at(p) >> high & 0x0F0F0F0Fu, pair_at(p + 4) >> high & 0x0F0F0F0Fu};
}

/* The same with a fifth bit of each (`add_fifth_bits`), of 32 in a word. */
DEVICE struct eight_levels eight_fives(const uint8_t *bytes, uint32_t fifth, int unit)
{
    struct eight_levels l = eight_halves(bytes, unit);
    uint32_t bits = fifth >> 8 * (unit % 4);
    return {l.first | ((bits & 15) * 0x02040810u & 0x10101010u), l.second | ((bits >> 4 & 15) * 0x02040810u & 0x10101010u)};
}

DEVICE void scale_less(struct eight_levels l, int number, float scale, float *x)
{
    scale_eight((uint32_t)minus_each((int)l.first, number), (uint32_t)minus_each((int)l.second, number), scale, 0, x);
}

DEVICE void eight_q4_0(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 18;
    scale_less(eight_halves(b + 2, unit), 8, half_at(b), x);
}

DEVICE void eight_q4_1(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 20;
    struct eight_levels l = eight_halves(b + 4, unit);
    scale_eight(l.first, l.second, half_at(b), -half_at(b + 2), x);
}

DEVICE void eight_q5_0(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 22;
    scale_less(eight_fives(b + 6, pair_at(b + 2), unit), 16, half_at(b), x);
}

DEVICE void eight_q5_1(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 24;
    struct eight_levels l = eight_fives(b + 8, pair_at(b + 4), unit);
    scale_eight(l.first, l.second, half_at(b), -half_at(b + 2), x);
}

DEVICE void eight_iq4_nl(const struct operand *, const uint8_t *row, int unit, float *x)
{
    const uint8_t *b = row + unit / 4 * 18;
    struct eight_levels l = eight_halves(b + 2, unit);
    float scale = half_at(b);
    for (int k = 0; k < 4; k++) {
        x[k] = scale * iq4_levels[l.first >> 8 * k & 15];
        x[4 + k] = scale * iq4_levels[l.second >> 8 * k & 15];
    }
}

/* Of a plain type, one by one; zeros behind the end of the row. */
DEVICE void eight_plain(const struct operand *t, const uint8_t *row, int unit, float *x)
{
    for (int i = 0; i < 8; i++)
        x[i] = 8 * unit + i < t->ne[0] ? load(t->type, row + (8 * unit + i) * type_size[t->type]) : 0;
}

/* Of any type. It calls a function, for which a kernel that has much in registers must save them. */
DEVICE void eight_any(const struct operand *t, const uint8_t *row, int unit, float *x)
{
    for (int i = 0; i < 8; i++)
        x[i] = 8 * unit + i < t->ne[0] ? element(t->type, row, 8 * unit + i) : 0;
}

/* For each type with a function of its own: X(name in `enum ggml_type`, name of the function). */
#define EIGHT_TYPES(X)                                                                                                    \
    X(F32, f32) X(F16, f16) X(BF16, bf16) X(Q8_0, q8_0) X(Q4_0, q4_0) X(Q4_1, q4_1) X(Q5_0, q5_0) X(Q5_1, q5_1)           \
    X(IQ4_NL, iq4_nl)

#define ANY_TYPE (-1)

/* The type by whose function rows are read; ANY_TYPE: element by element. */
DEVICE int32_t eights_of(const struct operand *t)
{
    bool plain = type_block[t->type] == 1;
    return plain && (t->ne[0] % 8 != 0 || !rows_are_aligned(t)) ? ANY_TYPE : t->type;
}
