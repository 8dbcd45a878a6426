/* Sixteen weights at a time as four registers of four signed bytes each, for __dp4a: all block types keep one scale for them.

   Loads are as wide as the block's size lets them be aligned: 16 bytes in Q4_K and Q5_K, else four. */
#pragma once
#include "blocks.cuh"

/* Sixteen elements: scale * level - minimum each. */
struct sixteen {
    int level[4];
    float scale, minimum;
};

DEVICE uint32_t pair_at(const uint8_t *p) { return *(const uint16_t *)p | (uint32_t)*(const uint16_t *)(p + 2) << 16; }

/* Sixteen bytes at an even address, by words of four: where these lie between multiples of four, two of each word's bytes belong to the
   next one. The first word may begin two bytes early, none ends late. */
DEVICE void load_pairs(const uint8_t *p, uint32_t *to)
{
    int odd = (int)((uint64_t)p & 2);
    const uint32_t *word = (const uint32_t *)(p - odd);
    uint32_t last = *(const uint16_t *)(p + 14);
    for (int i = 0; i < 4; i++)
        to[i] = word[i];
    for (int i = 0; i < 4; i++)
        to[i] = __funnelshift_r(to[i], i < 3 ? to[i + 1] : last, 8 * odd);
}

/* Low or high halves of sixteen bytes. */
DEVICE void halves_of(const uint32_t *bytes, int high, struct sixteen *to)
{
    for (int i = 0; i < 4; i++)
        to->level[i] = (int)(bytes[i] >> 4 * high & 0x0F0F0F0Fu);
}

/* An integer below 2^23: put behind 2^23, which is then taken away. Turning one into a float has a quarter of the rate of these two. */
DEVICE float small(uint32_t x) { return as_float(0x4B000000u | x) - 8388608.0f; }
DEVICE float small_signed(uint8_t x) { return as_float(0x4B000000u | (x ^ 0x80u)) - 8388736.0f; }

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

/* What is `raw` here has levels without a sign, from which a number is still to be taken. */
DEVICE struct sixteen less(struct sixteen raw, int number)
{
    subtract_from_all(&raw, number);
    return raw;
}

/* Bits i of sixteen to bit 4 of each byte. Four bits times 2^4 + 2^11 + 2^18 + 2^25 are each at that place of a byte, among others. */
DEVICE void add_fifth_bits(struct sixteen *s, uint32_t bits)
{
    for (int i = 0; i < 4; i++)
        s->level[i] |= (int)((bits >> 4 * i & 15) * 0x02040810u & 0x10101010u);
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
DEVICE struct sixteen raw_q4_0(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bytes[4];
    load_pairs(b + 2, bytes);
    halves_of(bytes, h, &s);
    return s;
}

DEVICE struct sixteen take_q4_0(const uint8_t *b, int h) { return less(raw_q4_0(b, h), 8); }

DEVICE struct sixteen take_q4_1(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), -half_at(b + 2)};
    uint32_t bytes[4];
    load_pairs(b + 4, bytes);
    halves_of(bytes, h, &s);
    return s;
}

DEVICE struct sixteen raw_q5_0(const uint8_t *b, int h)
{
    struct sixteen s = {{0}, half_at(b), 0};
    uint32_t bytes[4];
    load_pairs(b + 6, bytes);
    halves_of(bytes, h, &s);
    add_fifth_bits(&s, pair_at(b + 2) >> 16 * h);
    return s;
}

DEVICE struct sixteen take_q5_0(const uint8_t *b, int h) { return less(raw_q5_0(b, h), 16); }

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

DEVICE struct sixteen raw_q3_k(const uint8_t *b, int u)
{
    const uint8_t *packed = b + 96;
    int low = u < 8 ? packed[u] & 15 : packed[u - 8] >> 4, high = packed[8 + u % 4] >> 2 * (u / 4) & 3;
    struct sixteen s = {{0}, ((low | high << 4) - 32) * half_at(b + 108), 0};
    uint32_t bytes[4], third[4];
    load_pairs(b + 32 + u / 8 * 32 + u % 2 * 16, bytes);
    load_pairs(b + u % 2 * 16, third);
    for (int i = 0; i < 4; i++)
        s.level[i] = (int)((bytes[i] >> 2 * (u / 2 % 4) & 0x03030303u) | (third[i] >> u / 2 & 0x01010101u) << 2);
    return s;
}

DEVICE struct sixteen take_q3_k(const uint8_t *b, int u) { return less(raw_q3_k(b, u), 4); }

/* Scales and minimums of groups g and g + 1 of 32, g even, of the first sixteen bytes of a block of Q4_K or Q5_K: two halves and twelve
   bytes (`six_bits` of blocks.cuh reads these one by one). */
DEVICE void scale_by_six_bits(uint4 head, int g, struct sixteen *pair)
{
    int shift = 8 * (g % 4);
    uint32_t low = head.y >> shift, second = head.z >> shift, third = head.w >> shift;
    uint32_t scales = g < 4 ? low & 0x3F3F : (third & 0x0F0F) | (low >> 2 & 0x3030);
    uint32_t minimums = g < 4 ? second & 0x3F3F : (third >> 4 & 0x0F0F) | (second >> 2 & 0x3030);
    float scale = from_half((uint16_t)head.x), minimum = from_half((uint16_t)(head.x >> 16));
    for (int i = 0; i < 2; i++) {
        pair[i].scale = small(scales >> 8 * i & 0xFF) * scale;
        pair[i].minimum = small(minimums >> 8 * i & 0xFF) * minimum;
    }
}

/* Sixteens u and u + 2 of a block: the low and the high halves of the same bytes. */
DEVICE void pair_q4_k(const uint8_t *b, int u, struct sixteen *pair)
{
    scale_by_six_bits(*(const uint4 *)b, u / 2, pair);
    uint4 bytes = *(const uint4 *)(b + 16 + u / 4 * 32 + u % 2 * 16);
    halves_of(&bytes.x, 0, &pair[0]);
    halves_of(&bytes.x, 1, &pair[1]);
}

DEVICE void pair_q5_k(const uint8_t *b, int u, struct sixteen *pair)
{
    scale_by_six_bits(*(const uint4 *)b, u / 2, pair);
    uint4 bytes = *(const uint4 *)(b + 48 + u / 4 * 32 + u % 2 * 16), fifth = *(const uint4 *)(b + 16 + u % 2 * 16);
    const uint32_t *bits = &fifth.x;
    halves_of(&bytes.x, 0, &pair[0]);
    halves_of(&bytes.x, 1, &pair[1]);
    for (int i = 0; i < 4; i++) {
        uint32_t two = bits[i] >> u / 2;
        pair[0].level[i] |= (int)((two & 0x01010101u) << 4);
        pair[1].level[i] |= (int)((two & 0x02020202u) << 3);
    }
}

/* One of such a pair. */
DEVICE struct sixteen take_q4_k(const uint8_t *b, int u)
{
    struct sixteen pair[2];
    pair_q4_k(b, u & ~2, pair);
    return u & 2 ? pair[1] : pair[0];
}

DEVICE struct sixteen take_q5_k(const uint8_t *b, int u)
{
    struct sixteen pair[2];
    pair_q5_k(b, u & ~2, pair);
    return u & 2 ? pair[1] : pair[0];
}

DEVICE struct sixteen raw_q6_k(const uint8_t *b, int u)
{
    /* bits of u rather than quotients, so that the compiler sees that u and u + 4 load the same */
    struct sixteen s = {{0}, small_signed(b[192 + u]) * half_at(b + 208), 0};
    uint32_t bytes[4], high[4];
    load_pairs(b + (u & 8) * 8 + (u & 3) * 16, bytes);
    load_pairs(b + 128 + (u & 8) * 4 + (u & 1) * 16, high);
    halves_of(bytes, u >> 2 & 1, &s);
    for (int i = 0; i < 4; i++)
        s.level[i] |= (int)((high[i] >> (u & 6) & 0x03030303u) << 4);
    return s;
}

DEVICE struct sixteen take_q6_k(const uint8_t *b, int u) { return less(raw_q6_k(b, u), 32); }

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
