/* Packed weights with AVX-512: sixteen rows in a register, four products in an instruction (vpdpbusd) that adds them to 32 bits. */
#pragma once
#include <immintrin.h>

#define OFFSET_Q8_0 128 /* added to levels: the instruction wants them unsigned */
#define AHEAD 4096      /* bytes */

/* Bit i of 64 is the fifth bit of byte i of a word of all rows, [8 words]: a mask that the processor loads as it is. */
static void put_fifth_bit(uint8_t *bits, int word, int at, int bit)
{
    uint8_t *byte = bits + 8 * word + at / 8;
    *byte = (uint8_t)(*byte | bit << at % 8);
}

static inline __m512i load64(const void *p) { return _mm512_load_si512(p); }

static inline __m512i word_of(const int8_t *level, int i)
{
    int32_t word;
    memcpy(&word, level + 4 * i, 4);
    return _mm512_set1_epi32(word);
}

/* Two sums each, so that an instruction need not wait for the one before. `start` is what the offset of all levels adds, taken off. */
static inline __m512i products_q8_0(const uint8_t *levels, const int8_t *x, __m512i start)
{
    __m512i second = _mm512_setzero_si512();
    EACH_WORD(i, 4)
    {
        start = _mm512_dpbusd_epi32(start, load64(levels + 64 * i), word_of(x, i));
        second = _mm512_dpbusd_epi32(second, load64(levels + 64 * (i + 4)), word_of(x, i + 4));
    }
    return _mm512_add_epi32(start, second);
}

static inline __m512i products_q4_0(const uint8_t *levels, const int8_t *x, __m512i start)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i second = _mm512_setzero_si512();
    EACH_WORD(i, 4)
    {
        __m512i both = load64(levels + 64 * i);
        start = _mm512_dpbusd_epi32(start, _mm512_and_si512(both, low), word_of(x, i));
        second = _mm512_dpbusd_epi32(second, _mm512_and_si512(_mm512_srli_epi16(both, 4), low), word_of(x, i + 4));
    }
    return _mm512_add_epi32(start, second);
}

static inline __m512i with_fifth_bit(__m512i nibbles, const uint8_t *mask)
{
    __mmask64 bits;
    memcpy(&bits, mask, sizeof bits);
    return _mm512_mask_add_epi8(nibbles, bits, nibbles, _mm512_set1_epi8(16));
}

static inline __m512i products_q5_0(const uint8_t *levels, const uint8_t *bits, const int8_t *x, __m512i start)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i second = _mm512_setzero_si512();
    EACH_WORD(i, 4)
    {
        __m512i both = load64(levels + 64 * i), high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        start = _mm512_dpbusd_epi32(start, with_fifth_bit(_mm512_and_si512(both, low), bits + 8 * i), word_of(x, i));
        second = _mm512_dpbusd_epi32(second, with_fifth_bit(high, bits + 8 * i + 32), word_of(x, i + 4));
    }
    return _mm512_add_epi32(start, second);
}

/* The same text for each type, which the compiler knows in each copy. */
static inline __attribute__((always_inline)) void multiply_typed(const int32_t type, const uint8_t *packed,
                                                                 const struct activations *a, int64_t k, float *to)
{
    struct packed p = packed_at(type, packed, k);
    __m512 sum = _mm512_setzero_ps();
    const int64_t levels = level_bytes(type), bits = bit_bytes(type);
    const int offset = type == GGML_TYPE_Q8_0 ? OFFSET_Q8_0 : type == GGML_TYPE_Q5_0 ? 16 : 8;
    for (int64_t i = 0; i < k / 32; i++) {
        const int8_t *x = a->level + 32 * i;
        const uint8_t *level = p.levels + levels * i;
        __m512i start = _mm512_set1_epi32(-offset * a->sum[i]), products;
        _Pragma("GCC unroll 8") for (int64_t at = 0; at < levels; at += 64) __builtin_prefetch(level + at + AHEAD);
        if (type == GGML_TYPE_Q8_0)
            products = products_q8_0(level, x, start);
        else if (type == GGML_TYPE_Q5_0)
            products = products_q5_0(level, p.bits + bits * i, x, start);
        else
            products = products_q4_0(level, x, start);
        __m512 scale = _mm512_cvtph_ps(_mm256_load_si256((const void *)(p.scales + 2 * PACKED_ROWS * i)));
        scale = _mm512_mul_ps(scale, _mm512_set1_ps(a->scale[i]));
        sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), scale, sum);
    }
    _mm512_storeu_ps(to, sum);
}
