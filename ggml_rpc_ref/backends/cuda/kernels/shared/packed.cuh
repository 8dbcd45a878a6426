/* Sixteen weights at a time as four registers of four signed bytes each, for __dp4a: all block types keep one scale for them.

   Loads are as wide as the block's size lets them be aligned: 16 bytes in Q4_K and Q5_K, four in Q2_K and IQ4_XS, else two. */
#pragma once
#include "blocks.cuh"

/* Sixteen elements: scale * level - minimum each. */
struct sixteen {
    int level[4];
    float scale, minimum;
};

DEVICE uint32_t pair_at(const uint8_t *p) { return *(const uint16_t *)p | (uint32_t)*(const uint16_t *)(p + 2) << 16; }

/* Sixteen bytes at an even address. */
DEVICE void load_pairs(const uint8_t *p, uint32_t *to)
{
    for (int i = 0; i < 4; i++)
        to[i] = pair_at(p + 4 * i);
}

/* Low or high halves of sixteen bytes. */
DEVICE void halves_of(const uint32_t *bytes, int high, struct sixteen *to)
{
    for (int i = 0; i < 4; i++)
        to->level[i] = (int)(bytes[i] >> 4 * high & 0x0F0F0F0Fu);
}

/* Four bytes minus one number, none of which carries into the next: both below 128. */
DEVICE int minus_each(int bytes, int number)
{
    uint32_t flipped = ((uint32_t)bytes | 0x80808080u) - 0x01010101u * (uint32_t)number;
    return (int)(flipped ^ 0x80808080u);
}

DEVICE void subtract_from_all(struct sixteen *s, int number)
{
    for (int i = 0; i < 4; i++)
        s->level[i] = minus_each(s->level[i], number);
}

/* Bits i of sixteen to bit 4 of each byte. */
DEVICE void add_fifth_bits(struct sixteen *s, uint32_t bits)
{
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++)
            s->level[i] |= (int)((bits >> (4 * i + k) & 1) << (8 * k + 4));
}

/* Four codes of four bits, a byte each, to the bytes that a table has for them. */
DEVICE void look_up_all(struct sixteen *s, const int8_t *table)
{
    for (int i = 0; i < 4; i++) {
        uint32_t found = 0;
        for (int k = 0; k < 4; k++)
            found |= (uint32_t)(uint8_t)table[s->level[i] >> 8 * k & 15] << 8 * k;
        s->level[i] = (int)found;
    }
}

/* In blocks of 32, half h is the low or the high halves of the same sixteen bytes. */
DEVICE struct sixteen take_q4_0(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bytes[4];
    load_pairs(b + 2, bytes);
    halves_of(bytes, h, &s);
    subtract_from_all(&s, 8);
    return s;
}

DEVICE struct sixteen take_q4_1(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), -half_at(b + 2)};
    uint32_t bytes[4];
    load_pairs(b + 4, bytes);
    halves_of(bytes, h, &s);
    return s;
}

DEVICE struct sixteen take_q5_0(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bytes[4];
    load_pairs(b + 6, bytes);
    halves_of(bytes, h, &s);
    add_fifth_bits(&s, pair_at(b + 2) >> 16 * h);
    subtract_from_all(&s, 16);
    return s;
}

DEVICE struct sixteen take_q5_1(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), -half_at(b + 2)};
    uint32_t bytes[4];
    load_pairs(b + 8, bytes);
    halves_of(bytes, h, &s);
    add_fifth_bits(&s, pair_at(b + 4) >> 16 * h);
    return s;
}

DEVICE struct sixteen take_q8_0(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    load_pairs(b + 2 + 16 * h, (uint32_t *)s.level);
    return s;
}

DEVICE struct sixteen take_iq4_nl(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bytes[4];
    load_pairs(b + 2, bytes);
    halves_of(bytes, h, &s);
    look_up_all(&s, iq4_levels);
    return s;
}

/* In blocks of 256, u counts sixteens. */
DEVICE void four_at(const uint8_t *p, uint32_t *to)
{
    for (int i = 0; i < 4; i++)
        to[i] = *(const uint32_t *)(p + 4 * i);
}

DEVICE struct sixteen take_q2_k(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, (b[u] & 15) * half_at(b + 80), (b[u] >> 4) * half_at(b + 82)};
    uint32_t bytes[4];
    four_at(b + 16 + u / 8 * 32 + u % 2 * 16, bytes);
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)(bytes[i] >> 2 * (u / 2 % 4) & 0x03030303u);
    return s;
}

DEVICE struct sixteen take_q3_k(const uint8_t *b, int u)
{
    const uint8_t *packed = b + 96;
    int low = u < 8 ? packed[u] & 15 : packed[u - 8] >> 4, high = packed[8 + u % 4] >> 2 * (u / 4) & 3;
    struct sixteen s = {{0}, ((low | high << 4) - 32) * half_at(b + 108), 0};
    uint32_t bytes[4], third[4];
    load_pairs(b + 32 + u / 8 * 32 + u % 2 * 16, bytes);
    load_pairs(b + u % 2 * 16, third);
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)((bytes[i] >> 2 * (u / 2 % 4) & 0x03030303u) | (third[i] >> u / 2 & 0x01010101u) << 2);
    subtract_from_all(&s, 4);
    return s;
}

DEVICE struct sixteen take_q4_k(const uint8_t *b, int u)
{
    int scale, minimum;
    six_bits(b + 4, u / 2, &scale, &minimum);
    struct sixteen s = {{0}, scale * half_at(b), minimum * half_at(b + 2)};
    uint4 bytes = *(const uint4 *)(b + 16 + u / 4 * 32 + u % 2 * 16);
    halves_of(&bytes.x, u / 2 % 2, &s);
    return s;
}

DEVICE struct sixteen take_q5_k(const uint8_t *b, int u)
{
    int scale, minimum;
    six_bits(b + 4, u / 2, &scale, &minimum);
    struct sixteen s = {{0}, scale * half_at(b), minimum * half_at(b + 2)};
    uint4 bytes = *(const uint4 *)(b + 48 + u / 4 * 32 + u % 2 * 16), fifth = *(const uint4 *)(b + 16 + u % 2 * 16);
    const uint32_t *bits = &fifth.x;
    halves_of(&bytes.x, u / 2 % 2, &s);
    for (int i = 0; i < 4; i++)
        s.level[i] |= (int)((bits[i] >> u / 2 & 0x01010101u) << 4);
    return s;
}

DEVICE struct sixteen take_q6_k(const uint8_t *b, int u)
{
    struct sixteen s = {{0}, (int8_t)b[192 + u] * half_at(b + 208), 0};
    uint32_t bytes[4], high[4];
    load_pairs(b + u / 8 * 64 + u % 4 * 16, bytes);
    load_pairs(b + 128 + u / 8 * 32 + u % 2 * 16, high);
    halves_of(bytes, u / 4 % 2, &s);
    for (int i = 0; i < 4; i++)
        s.level[i] |= (int)((high[i] >> 2 * (u / 2 % 4) & 0x03030303u) << 4);
    subtract_from_all(&s, 32);
    return s;
}

DEVICE struct sixteen take_iq4_xs(const uint8_t *b, int u)
{
    int g = u / 2, scale = (b[4 + g / 2] >> 4 * (g % 2) & 15) | (u16(b + 2) >> 2 * g & 3) << 4;
    struct sixteen s = {{0}, (scale - 32) * half_at(b), 0};
    uint32_t bytes[4];
    four_at(b + 8 + 16 * g, bytes);
    halves_of(bytes, u % 2, &s);
    look_up_all(&s, iq4_levels);
    return s;
}
