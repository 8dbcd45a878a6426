/* Packed weights with AVX2: eight rows in a register. */
#pragma once
#include <immintrin.h>

#define OFFSET_Q8_0 0 /* added to levels, which stay signed */
#define AHEAD 4096 /* bytes; Zen 1 reads 14 GB/s so, 8 with the processor's own prefetching alone */

/* Bit i of a byte is the fifth bit of that byte of word i: [8 rows][4]. */
static void put_fifth_bit(uint8_t *bits, int word, int at, int bit) { bits[at] = (uint8_t)(bits[at] | bit << word); }

static inline __m256i load32(const void *p) { return _mm256_load_si256(p); }

static inline __m256i word_of(const int8_t *level, int i)
{
    int32_t word;
    memcpy(&word, level + 4 * i, 4);
    return _mm256_set1_epi32(word);
}

/* Add the products of 32 elements, times both scales. */
static inline __m256 add_scaled(__m256 sum, __m256i products, const uint8_t *scales, float scale)
{
    __m256 both = _mm256_mul_ps(_mm256_cvtph_ps(_mm_load_si128((const void *)scales)), _mm256_set1_ps(scale));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), both, sum);
}

static inline __m256i widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

/* The levels' signs are given to the activations: two products fit sixteen bits. */
static inline __m256i products_q8_0(const uint8_t *levels, const int8_t *x)
{
    __m256i sum = _mm256_setzero_si256();
    EACH_WORD(i, 8)
    {
        __m256i w = load32(levels + 32 * i);
        sum = _mm256_add_epi32(sum, widened(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(word_of(x, i), w))));
    }
    return sum;
}

/* Eight pairs of products of a level up to 15 fit sixteen bits. */
static inline __m256i products_q4_0(const uint8_t *levels, const int8_t *x)
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i pairs = _mm256_setzero_si256();
    EACH_WORD(i, 4)
    {
        __m256i both = load32(levels + 32 * i);
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(_mm256_and_si256(both, low), word_of(x, i)));
        both = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(both, word_of(x, i + 4)));
    }
    return widened(pairs);
}

/* Four pairs of a level up to 31. */
static inline __m256i products_q5_0(const uint8_t *levels, const uint8_t *bits, const int8_t *x)
{
    const __m256i low = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16);
    __m256i high = load32(bits), first = _mm256_setzero_si256(), second = first;
    EACH_WORD(i, 4)
    {
        __m256i both = load32(levels + 32 * i), bit = _mm256_and_si256(_mm256_slli_epi16(high, 4 - i), fifth);
        first = _mm256_add_epi16(first, _mm256_maddubs_epi16(_mm256_or_si256(_mm256_and_si256(both, low), bit), word_of(x, i)));
        bit = _mm256_and_si256(i ? _mm256_srli_epi16(high, i) : high, fifth);
        both = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(both, 4), low), bit);
        second = _mm256_add_epi16(second, _mm256_maddubs_epi16(both, word_of(x, i + 4)));
    }
    return _mm256_add_epi32(widened(first), widened(second));
}

void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to)
{
    struct packed p = packed_at(type, packed, k);
    __m256 sum = _mm256_setzero_ps();
    int64_t bytes = level_bytes(type) + bit_bytes(type) + 16;
    for (int64_t i = 0; i < k / 32; i++) {
        const int8_t *x = a->level + 32 * i;
        for (int64_t at = 0; at < bytes; at += 64) /* the next groups, which lie behind this one */
            __builtin_prefetch(packed + bytes * i + at + AHEAD);
        __m256i products;
        if (type == GGML_TYPE_Q8_0) {
            products = products_q8_0(p.levels + 256 * i, x);
        } else {
            bool five = type == GGML_TYPE_Q5_0;
            products = five ? products_q5_0(p.levels + 128 * i, p.bits + 32 * i, x) : products_q4_0(p.levels + 128 * i, x);
            products = _mm256_sub_epi32(products, _mm256_set1_epi32((five ? 16 : 8) * a->sum[i]));
        }
        sum = add_scaled(sum, products, p.scales + 16 * i, a->scale[i]);
    }
    _mm256_storeu_ps(to, sum);
}
