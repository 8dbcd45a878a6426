/* See dot.h. The first function of each kind is the plain one; those for AVX2 and AVX-512, and in dot_neon.h, compute the same sums
   in other orders.

   AVX2 and AVX-512 multiply unsigned by signed bytes, four (or two) products at a time. Weights are made unsigned by their
   offset, and what that adds, the offset times the sum of the activations, is taken off again; or by giving their signs to the
   activations. */
#include "dot.h"

#include "vector.h"

/* The same text for each type, which the compiler knows in each copy. */
static inline __attribute__((always_inline)) float dot_typed(const float *a, const uint8_t *b, const int32_t type, int64_t n)
{
    const int size = type == GGML_TYPE_F32 ? 4 : 2;
    f32x16 sums[8] = {{0}};
    int64_t i = 0;
    for (; i + 8 * LANES <= n; i += 8 * LANES)
        _Pragma("GCC unroll 8") for (int k = 0; k < 8; k++)
        {
            int64_t at = i + k * LANES;
            sums[k] = fma16(load16(a + at), load_floats(b + size * at, type), sums[k]);
        }
    for (; i + LANES <= n; i += LANES)
        sums[0] = fma16(load16(a + i), load_floats(b + size * i, type), sums[0]);
    if (i < n) {
        uint8_t rest[4 * LANES] = {0};
        memcpy(rest, b + size * i, size * (n - i));
        sums[1] = fma16(load_some(a + i, n - i), load_floats(rest, type), sums[1]);
    }
    return sum16(((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])));
}

float dot_floats(const float *a, const uint8_t *b, int32_t type, int64_t n)
{
    switch (type) {
    case GGML_TYPE_F16: return dot_typed(a, b, GGML_TYPE_F16, n);
    case GGML_TYPE_BF16: return dot_typed(a, b, GGML_TYPE_BF16, n);
    default: return dot_typed(a, b, GGML_TYPE_F32, n);
    }
}

#if defined(__AVX2__)

/* Eight sums of four products each are added to `sum`; u unsigned and at most 128, s signed: two
   products of them fit sixteen bits in AVX2. */
static inline __m256i add_products(__m256i sum, __m256i u, __m256i s)
{
#if defined(__AVX512VNNI__)
    return _mm256_dpbusd_epi32(sum, u, s);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1)));
#endif
}

/* The same of signed weights, from 0: their signs are given to the activations. An offset of 128, and its sum taken off again,
   would cost digits where levels are small, as in the ternary types. */
static inline __m256i signed_products(__m256i w, __m256i s)
{
    return add_products(_mm256_setzero_si256(), _mm256_abs_epi8(w), _mm256_sign_epi8(s, w));
}

static inline __m256i load32(const void *p) { return _mm256_loadu_si256(p); }

static inline float sum8(__m256 v)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Four sums, so that one addition need not wait for the other. */
#define SUMS __m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()}
#define EACH_SUM _Pragma("GCC unroll 4") /* so that i % 4 is known, and the sums are registers */
#define TOTAL sum8(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])))

static inline __m256 add_scaled(__m256 sum, __m256i products, float scale)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_set1_ps(scale), sum);
}

/* The scales of two groups of 16, each for its four lanes. */
static inline __m256 two_scales(const float *scale)
{
    return _mm256_set_m128(_mm_broadcast_ss(scale + 1), _mm_broadcast_ss(scale));
}

float dot_levels(const struct block_type *type, const struct weights *w, const struct activations *a, int64_t k)
{
    SUMS;
    for (int64_t i = 0; i < k / 32; i++) {
        __m256i products = signed_products(load32(w->level + 32 * i), load32(a->level + 32 * i));
        __m256 scale = type->group == 32 ? _mm256_set1_ps(w->scale[i]) : two_scales(w->scale + 2 * i);
        scale = _mm256_mul_ps(scale, _mm256_set1_ps(a->scale[i]));
        sums[i % 4] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, sums[i % 4]);
    }
    return TOTAL - (type->has_minimum ? dot_f32(w->minimum, a->weighted, k / type->group) : 0);
}

/* ------------------------------------------------------------------------------------------------------- 32 elements */

static inline uint16_t u16(const uint8_t *p)
{
    uint16_t x;
    memcpy(&x, p, 2);
    return x;
}

static float dot_q8_0(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    int64_t n = k / 32;
    EACH_SUM for (int64_t i = 0; i < n; i++, row += 34) {
        __builtin_prefetch(row + 2048);
        __m256i products = signed_products(load32(row + 2), load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
    }
    return TOTAL;
}

/* 16 bytes to 32 levels: the low halves, then the high ones. */
static inline __m256i load_nibbles(const void *p)
{
    __m128i packed = _mm_loadu_si128(p);
    return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(packed, 4), packed), _mm256_set1_epi8(15));
}

/* 16 where a bit is set, else 0. */
static inline __m256i bits_times_16(uint32_t bits)
{
#if defined(__AVX512BW__)
    return _mm256_maskz_mov_epi8(bits, _mm256_set1_epi8(16));
#else
    const __m256i bytes = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i spread = _mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), bytes), bit);
    return _mm256_and_si256(_mm256_cmpeq_epi8(spread, bit), _mm256_set1_epi8(16));
#endif
}

/* Offset times the sum, to begin with. */
static inline __m256i less(int offset, int32_t total) { return _mm256_zextsi128_si256(_mm_cvtsi32_si128(-offset * total)); }

static float dot_q4_0(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += 18) {
        __m256i products = add_products(less(8, a->sum[i]), load_nibbles(row + 2), load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
    }
    return TOTAL;
}

static float dot_q5_0(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += 22) {
        uint32_t high;
        memcpy(&high, row + 2, 4);
        __m256i levels = _mm256_or_si256(load_nibbles(row + 6), bits_times_16(high));
        __m256i products = add_products(less(16, a->sum[i]), levels, load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
    }
    return TOTAL;
}

static float dot_q4_1(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    float minimums = 0;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += 20) {
        __m256i products = add_products(_mm256_setzero_si256(), load_nibbles(row + 4), load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
        minimums += from_half(u16(row + 2)) * a->weighted[i];
    }
    return TOTAL + minimums;
}

static float dot_q5_1(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    float minimums = 0;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += 24) {
        uint32_t high;
        memcpy(&high, row + 4, 4);
        __m256i levels = _mm256_or_si256(load_nibbles(row + 8), bits_times_16(high));
        __m256i products = add_products(_mm256_setzero_si256(), levels, load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
        minimums += from_half(u16(row + 2)) * a->weighted[i];
    }
    return TOTAL + minimums;
}

static float dot_iq4_nl(const uint8_t *row, const struct activations *a, int64_t k)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
    SUMS;
    EACH_SUM for (int64_t i = 0; i < k / 32; i++, row += 18) {
        __m256i levels = _mm256_shuffle_epi8(table, load_nibbles(row + 2));
        __m256i products = signed_products(levels, load32(a->level + 32 * i));
        sums[i % 4] = add_scaled(sums[i % 4], products, from_half(u16(row)) * a->scale[i]);
    }
    return TOTAL;
}

/* ------------------------------------------------------------------------------------------------------- the K types */

/* The twelve scale bytes of Q4_K and Q5_K: eight scales times d, and eight minimums times dmin. */
static inline void six_bit_pairs(const uint8_t *packed, float d, float dmin, __m256 *scales, __m256 *minimums)
{
    uint32_t part[3];
    memcpy(part, packed, 12);
    uint64_t scale = part[0] & 0x3F3F3F3Fu, minimum = part[1] & 0x3F3F3F3Fu;
    scale |= (uint64_t)((part[2] & 0x0F0F0F0Fu) | (part[0] >> 2 & 0x30303030u)) << 32;
    minimum |= (uint64_t)((part[2] >> 4 & 0x0F0F0F0Fu) | (part[1] >> 2 & 0x30303030u)) << 32;
    __m256i whole = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)scale));
    *scales = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(d));
    whole = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)minimum));
    *minimums = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(dmin));
}

static float dot_q4_k(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    __m256 minimum_sum = _mm256_setzero_ps();
    const __m256i low = _mm256_set1_epi8(15);
    for (int64_t i = 0; i < k / 256; i++, row += 144) {
        __m256 scales, minimums;
        float d[8];
        six_bit_pairs(row + 4, from_half(u16(row)) * a->scale[8 * i], from_half(u16(row + 2)), &scales, &minimums);
        _mm256_storeu_ps(d, scales);
        minimum_sum = _mm256_fmadd_ps(minimums, _mm256_loadu_ps(a->weighted + 8 * i), minimum_sum);
        const int8_t *level = a->level + 256 * i;
        for (int j = 0; j < 4; j++) {
            __m256i packed = load32(row + 16 + 32 * j);
            __m256i first = _mm256_and_si256(packed, low), second = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
            first = add_products(_mm256_setzero_si256(), first, load32(level + 64 * j));
            second = add_products(_mm256_setzero_si256(), second, load32(level + 64 * j + 32));
            sums[j] = add_scaled(add_scaled(sums[j], first, d[2 * j]), second, d[2 * j + 1]);
        }
    }
    return TOTAL - sum8(minimum_sum);
}

static float dot_q5_k(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    __m256 minimum_sum = _mm256_setzero_ps();
    const __m256i low = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16);
    for (int64_t i = 0; i < k / 256; i++, row += 176) {
        __m256 scales, minimums;
        float d[8];
        six_bit_pairs(row + 4, from_half(u16(row)) * a->scale[8 * i], from_half(u16(row + 2)), &scales, &minimums);
        _mm256_storeu_ps(d, scales);
        minimum_sum = _mm256_fmadd_ps(minimums, _mm256_loadu_ps(a->weighted + 8 * i), minimum_sum);
        const int8_t *level = a->level + 256 * i;
        __m256i high = load32(row + 16);
        for (int j = 0; j < 4; j++) {
            __m256i packed = load32(row + 48 + 32 * j);
            /* bits 2j and 2j + 1 of each byte, shifted to bit 4; what falls in from the neighbour is masked */
            __m256i bit = j < 2 ? _mm256_slli_epi16(high, 4 - 2 * j) : _mm256_srli_epi16(high, 2 * j - 4);
            __m256i next = j < 2 ? _mm256_slli_epi16(high, 3 - 2 * j) : _mm256_srli_epi16(high, 2 * j - 3);
            __m256i first = _mm256_or_si256(_mm256_and_si256(packed, low), _mm256_and_si256(bit, fifth));
            __m256i second = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
            second = _mm256_or_si256(second, _mm256_and_si256(next, fifth));
            first = add_products(_mm256_setzero_si256(), first, load32(level + 64 * j));
            second = add_products(_mm256_setzero_si256(), second, load32(level + 64 * j + 32));
            sums[j] = add_scaled(add_scaled(sums[j], first, d[2 * j]), second, d[2 * j + 1]);
        }
    }
    return TOTAL - sum8(minimum_sum);
}

/* Add 32 products whose two halves have scales of their own. */
static inline __m256 add_halves(__m256 sum, __m256i levels, const int8_t *activations, const float *scale)
{
    __m256i products = add_products(_mm256_setzero_si256(), levels, load32(activations));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), two_scales(scale), sum);
}

static float dot_q6_k(const uint8_t *row, const struct activations *a, int64_t k)
{
    SUMS;
    __m256 offsets = _mm256_setzero_ps();
    const __m256i low = _mm256_set1_epi8(15), middle = _mm256_set1_epi8(0x30);
    for (int64_t i = 0; i < k / 256; i++, row += 210) {
        float scale[16], d = from_half(u16(row + 208));
        for (int half = 0; half < 2; half++) {
            __m256i whole = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(row + 192 + 8 * half)));
            __m256 scales = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_set1_ps(d));
            offsets = _mm256_fmadd_ps(scales, _mm256_loadu_ps(a->weighted + 16 * i + 8 * half), offsets);
            _mm256_storeu_ps(scale + 8 * half, _mm256_mul_ps(scales, _mm256_set1_ps(a->scale[8 * i])));
        }
        const int8_t *level = a->level + 256 * i;
        for (int part = 0; part < 2; part++) {
            __m256i first = load32(row + 64 * part), second = load32(row + 64 * part + 32), high = load32(row + 128 + 32 * part);
            const int8_t *x = level + 128 * part;
            const float *s = scale + 8 * part;
            __m256i q = _mm256_or_si256(_mm256_and_si256(first, low), _mm256_and_si256(_mm256_slli_epi16(high, 4), middle));
            sums[0] = add_halves(sums[0], q, x, s);
            q = _mm256_or_si256(_mm256_and_si256(second, low), _mm256_and_si256(_mm256_slli_epi16(high, 2), middle));
            sums[1] = add_halves(sums[1], q, x + 32, s + 2);
            q = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(first, 4), low), _mm256_and_si256(high, middle));
            sums[2] = add_halves(sums[2], q, x + 64, s + 4);
            q = _mm256_and_si256(_mm256_srli_epi16(high, 2), middle);
            q = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(second, 4), low), q);
            sums[3] = add_halves(sums[3], q, x + 96, s + 6);
        }
    }
    return TOTAL - 32 * sum8(offsets);
}

#elif defined(NEON)
#include "dot_neon.h"
#else

float dot_levels(const struct block_type *type, const struct weights *w, const struct activations *a, int64_t k)
{
    float total = 0;
    for (int64_t g = 0; g < k / type->group; g++) {
        const int8_t *x = w->level + g * type->group, *y = a->level + g * type->group;
        int32_t sum = 0;
        for (int i = 0; i < type->group; i++)
            sum += x[i] * y[i];
        total += w->scale[g] * a->scale[g * type->group / 32] * (float)sum;
        if (type->has_minimum)
            total -= w->minimum[g] * a->weighted[g];
    }
    return total;
}

#endif

dot_function dot_of(int32_t type)
{
#if defined(__AVX2__) || defined(NEON)
    switch (type) {
    case GGML_TYPE_Q8_0: return dot_q8_0;
    case GGML_TYPE_Q4_0: return dot_q4_0;
    case GGML_TYPE_Q5_0: return dot_q5_0;
    case GGML_TYPE_Q4_1: return dot_q4_1;
    case GGML_TYPE_Q5_1: return dot_q5_1;
    case GGML_TYPE_IQ4_NL: return dot_iq4_nl;
    case GGML_TYPE_Q4_K: return dot_q4_k;
    case GGML_TYPE_Q5_K: return dot_q5_k;
    case GGML_TYPE_Q6_K: return dot_q6_k;
    default: break;
    }
#endif
    (void)type;
    return NULL;
}
