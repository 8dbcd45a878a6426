/* See packed.h. For each 32 elements, in this order behind one another for the whole length: what the type has of

       levels  Q8_0 [8 words][8 rows], four levels a word, signed
               Q4_0, Q5_0 [4][8 rows]: word i in the low halves of the bytes, word i + 4 in the high ones; 8 and 16 added to levels
       bits    Q5_0 [8 rows]: bit i of a byte is the fifth bit of that byte of word i
       scales  [8 rows], F16 */
#include "packed.h"

#if defined(__AVX2__) && !defined(__AVX512VNNI__)
#include <immintrin.h>

#define AHEAD 4096 /* bytes; Zen 1 reads 14 GB/s so, 8 with the processor's own prefetching alone */
#define EACH_WORD(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

static int level_bytes(int32_t type) { return type == GGML_TYPE_Q8_0 ? 256 : 128; }
static int bit_bytes(int32_t type) { return type == GGML_TYPE_Q5_0 ? 32 : 0; }

int64_t packed_size(int32_t type, int64_t k)
{
    if (type != GGML_TYPE_Q8_0 && type != GGML_TYPE_Q5_0 && type != GGML_TYPE_Q4_0)
        return 0;
    return aligned(k / 32 * (level_bytes(type) + bit_bytes(type) + 16));
}

/* Where a group's arrays lie. */
struct packed {
    uint8_t *levels, *bits, *scales;
};

static struct packed packed_at(int32_t type, const uint8_t *memory, int64_t k)
{
    uint8_t *levels = (uint8_t *)memory, *bits = levels + k / 32 * level_bytes(type);
    return (struct packed){levels, bits, bits + k / 32 * bit_bytes(type)};
}

/* 32 levels of a row. */
static void pack_levels(int32_t type, const int8_t *level, int row, struct packed to)
{
    if (type == GGML_TYPE_Q8_0) {
        for (int word = 0; word < 8; word++)
            memcpy(to.levels + 32 * word + 4 * row, level + 4 * word, 4);
        return;
    }
    int offset = -block_types[type].lowest;
    for (int i = 0; i < 16; i++) {
        int low = level[i] + offset, high = level[i + 16] + offset, word = i / 4, at = 4 * row + i % 4;
        to.levels[32 * word + at] = (uint8_t)((low & 15) | high << 4);
        if (type == GGML_TYPE_Q5_0) {
            uint8_t before = word ? to.bits[at] : 0;
            to.bits[at] = (uint8_t)(before | (low >> 4) << word | (high >> 4) << (word + 4));
        }
    }
}

void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to)
{
    for (int row = 0; row < PACKED_ROWS; row++) {
        struct packed p = packed_at(type, to, k);
        const uint8_t *block = rows + row * stride;
        for (int64_t i = 0; i < k / 32; i++, block += type_size[type]) {
            struct unpacked unpacked;
            block_types[type].unpack(block, &unpacked);
            pack_levels(type, unpacked.level, row, p);
            memcpy(p.scales + 2 * row, block, 2); /* each of these types begins with it */
            p.levels += level_bytes(type);
            p.bits += bit_bytes(type);
            p.scales += 16;
        }
    }
}

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

#else

int64_t packed_size(int32_t type, int64_t k)
{
    (void)type, (void)k;
    return 0;
}

void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to)
{
    (void)type, (void)rows, (void)stride, (void)k, (void)to;
}

void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to)
{
    (void)type, (void)packed, (void)a, (void)k, (void)to;
}

#endif
