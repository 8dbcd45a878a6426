/* Sixteen weights at a time, as in packed.cuh, of the types whose levels are signs, three values or entries of a table.

   Bytes are taken one by one: blocks of 17, 50 or 98 bytes keep no alignment. */
#pragma once
#include "packed.cuh"

/* Bits of a number to bit 0 of four bytes, the lowest to the first byte. */
DEVICE uint32_t four_bits(uint32_t bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

/* Pairs of bits of a byte to four bytes. */
DEVICE uint32_t four_pairs(uint32_t byte) { return (byte | byte << 6 | byte << 12 | byte << 18) & 0x03030303u; }

/* Four bytes, none of them 0 or -128, negative where there is a bit. */
DEVICE int with_signs(uint32_t four, uint32_t minus)
{
    uint32_t bits = four_bits(minus), all = bits * 0xFF;
    return (int)((four ^ all) + bits);
}

/* ------------------------------------------------------------------------------------------------------ four-bit floats */

DEVICE struct sixteen take_mxfp4(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_e8m0(b[0]), 0};
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)(u32(b + 1 + 4 * i) >> 4 * h & 0x0F0F0F0Fu);
    look_up_all(&s, e2m1_doubled);
    return s;
}

DEVICE struct sixteen take_nvfp4(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, half_ue4m3(b[u]), 0};
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)(u32(b + 4 + 8 * u + 4 * (i % 2)) >> 4 * (i / 2) & 0x0F0F0F0Fu);
    look_up_all(&s, e2m1_doubled);
    return s;
}

/* --------------------------------------------------------------------------------------------- signs and three values */

DEVICE struct sixteen take_q1_0(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bits = u16(b + 2 + 2 * u);
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)(four_bits(bits >> 4 * i) << 1);
    subtract_from_all(&s, 1);
    return s;
}

DEVICE struct sixteen take_q2_0(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, half_at(b), 0};
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)four_pairs(b[2 + 4 * u + i]);
    subtract_from_all(&s, 1);
    return s;
}

DEVICE struct sixteen take_tq2_0(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, half_at(b + 64), 0};
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)(u32(b + u / 8 * 32 + u % 2 * 16 + 4 * i) >> 2 * (u / 2 % 4) & 0x03030303u);
    subtract_from_all(&s, 1);
    return s;
}

DEVICE struct sixteen take_tq1_0(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, half_at(b + 52), 0};
    for (int i = 0; i < 16; i++) {
        int level = u < 10 ? digit(b[u % 2 * 16 + i], u / 2) : u < 15 ? digit(b[32 + i], u - 10) : digit(b[48 + i % 4], i / 4);
        s.level[i / 4] |= (int)((uint32_t)(uint8_t)level << 8 * (i % 4));
    }
    return s;
}

/* ------------------------------------------------------------------------------------------------ entries of a table */

/* The r-th eight of sixteen: an entry of eight numbers, negative where there is a bit. */
DEVICE void set_eight(struct sixteen *s, int r, const uint8_t *entry, uint32_t minus)
{
    s->level[2 * r] = with_signs(u32(entry), minus);
    s->level[2 * r + 1] = with_signs(u32(entry + 4), minus >> 4);
}

DEVICE struct sixteen take_iq2_xxs(const uint8_t *b, int u)
{
    const uint8_t *grid = b + 2 + u / 2 * 8;
    uint32_t signs = u32(grid + 4);
    struct sixteen s = {{0}, (0.5f + (float)(signs >> 28)) * half_at(b) * 0.25f, 0};
    for (int r = 0; r < 2; r++) {
        int run = u % 2 * 2 + r;
        set_eight(&s, r, iq2_xxs_grid[grid[run]], even_signs(signs >> 7 * run & 127));
    }
    return s;
}

DEVICE struct sixteen take_iq2_xs(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, quarter_scale(b + 66, u) * half_at(b) * 0.25f, 0};
    for (int r = 0; r < 2; r++) {
        uint32_t q = u16(b + 2 + 2 * (2 * u + r));
        set_eight(&s, r, iq2_xs_grid[q & 511], even_signs(q >> 9));
    }
    return s;
}

DEVICE struct sixteen take_iq2_s(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, quarter_scale(b + 74, u) * half_at(b) * 0.25f, 0};
    for (int r = 0; r < 2; r++) {
        int run = 2 * u + r;
        set_eight(&s, r, iq2_s_grid[b[2 + run] | (b[66 + run / 4] >> 2 * (run % 4) & 3) << 8], b[34 + run]);
    }
    return s;
}

DEVICE struct sixteen take_iq3_xxs(const uint8_t *b, int u)
{
    uint32_t signs = u32(b + 66 + u / 2 * 4);
    struct sixteen s = {{0}, (0.5f + (float)(signs >> 28)) * half_at(b) * 0.5f, 0};
    for (int i = 0; i < 4; i++) {
        uint32_t eight = even_signs(signs >> 7 * (u % 2 * 2 + i / 2) & 127);
        s.level[i] = with_signs(u32(iq3_xxs_grid[b[2 + 4 * u + i]]), eight >> 4 * (i % 2));
    }
    return s;
}

DEVICE struct sixteen take_iq3_s(const uint8_t *b, int u)
{
    int g = u / 2;
    struct sixteen s = {{0}, (float)(1 + 2 * (b[106 + g / 2] >> 4 * (g % 2) & 15)) * half_at(b), 0};
    for (int i = 0; i < 4; i++) {
        int k = u % 2 * 4 + i, index = b[2 + 8 * g + k] | (b[66 + g] >> k & 1) << 8;
        s.level[i] = with_signs(u32(iq3_s_grid[index]), b[74 + 2 * u + i / 2] >> 4 * (i % 2));
    }
    return s;
}

/* The r-th eight of sixteen, of entries of -1, 0 and 1: eight times these, one less or more (`shifted`). */
DEVICE void set_shifted(struct sixteen *s, int r, const int8_t *entry, uint32_t minus)
{
    for (int i = 0; i < 8; i++)
        s->level[2 * r + i / 4] |= (int)((uint32_t)(uint8_t)shifted(entry[i], minus) << 8 * (i % 4));
}

DEVICE struct sixteen take_iq1_s(const uint8_t *b, int u)
{
    int g = u / 2;
    uint32_t qh = u16(b + 34 + 2 * g);
    struct sixteen s = {{0}, (float)(1 + 2 * (qh >> 12 & 7)) * half_at(b) * 0.125f, 0};
    for (int r = 0; r < 2; r++) {
        int run = u % 2 * 2 + r;
        set_shifted(&s, r, iq1_grid[b[2 + 4 * g + run] | (qh >> 3 * run & 7) << 8], qh >> 15);
    }
    return s;
}

DEVICE struct sixteen take_iq1_m(const uint8_t *b, int u)
{
    uint32_t bits = 0;
    for (int w = 0; w < 4; w++)
        bits |= u16(b + 48 + 2 * w) >> 12 << 4 * w;
    int level = 1 + 2 * (int)(u16(b + 48 + 2 * (u / 4)) >> 3 * (u % 4) & 7);
    struct sixteen s = {{0}, (float)level * from_half((uint16_t)bits) * 0.125f, 0};
    for (int r = 0; r < 2; r++) {
        uint32_t qh = b[32 + u] >> 4 * r & 15;
        set_shifted(&s, r, iq1_grid[b[2 * u + r] | (qh & 7) << 8], qh >> 3);
    }
    return s;
}
