/* The plain types and the oldest of 32 elements (`quantise_k.c` has the K types, `quantise_levels.c` the others); SPEC.md has the formulas, blocks/legacy.py the same in numpy. */
#include "quantise.h"

#include "quantise_k.h"
#include "quantise_levels.h"
#include "rounding.h"
#include "vector.h"

static void smallest_and_largest(const float *x, int n, float *low, float *high)
{
    *low = 0x1.fffffep127f;
    *high = -0x1.fffffep127f;
    for (int i = 0; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

/* Towards zero; -2^31 for NaN and what does not fit. */
static inline i32x16 truncated16(f32x16 v)
{
#if defined(__AVX512F__)
    return (i32x16)_mm512_cvttps_epi32((__m512)v);
#elif defined(__AVX2__)
    return (i32x16)_mm256_cvttps_epi32((__m256)v);
#elif defined(NEON) /* which makes 0 of NaN, and the nearest integer there is of the others */
    i32x16 fits = (f32x16)((i32x16)v & 0x7FFFFFFF) < splat(0x1p31f);
    return ((i32x16)vcvtq_s32_f32((float32x4_t)v) & fits) | (INT32_MIN & ~fits);
#else
    i32x16 whole;
    for (int i = 0; i < LANES; i++)
        whole[i] = truncated(v[i]);
    return whole;
#endif
}

/* 32 levels: the low byte of ((x - low) * factor + shift) cut to an integer, at most `most` as a signed byte. */
static inline void find_levels(const float *x, float low, float factor, float shift, int most, uint8_t *level)
{
    for (int i = 0; i < 32; i += LANES) {
        i32x16 whole = truncated16((load16(x + i) - low) * factor + shift) << 24 >> 24, larger = whole > most;
        store_levels((int8_t *)level + i, (larger & most) | (whole & ~larger));
    }
}

static void put_nibbles(const uint8_t *level, uint8_t *to)
{
    for (int i = 0; i < 16; i++)
        to[i] = (uint8_t)(level[i] | level[16 + i] << 4);
}

static void quantise_q4_0(const float *x, uint8_t *to)
{
    float d = largest(x, 32) / -8;
    uint8_t level[32];
    find_levels(x, 0, inverse(d), 8.5f, 15, level);
    put16(to, to_half(d));
    put_nibbles(level, to + 2);
}

static void quantise_q4_1(const float *x, uint8_t *to)
{
    float low, high;
    smallest_and_largest(x, 32, &low, &high);
    float d = (high - low) / 15;
    uint8_t level[32];
    find_levels(x, low, inverse(d), 0.5f, 15, level);
    put16(to, to_half(d));
    put16(to + 2, to_half(low));
    put_nibbles(level, to + 4);
}

static void put_five_bits(const uint8_t *levels, uint8_t *high, uint8_t *low)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(levels[i] >> 4 & 1) << i;
    memcpy(high, &bits, 4);
    for (int i = 0; i < 16; i++)
        low[i] = (uint8_t)((levels[i] & 15) | (levels[16 + i] & 15) << 4);
}

static void quantise_q5_0(const float *x, uint8_t *to)
{
    float d = largest(x, 32) / -16;
    uint8_t levels[32];
    find_levels(x, 0, inverse(d), 16.5f, 31, levels);
    put16(to, to_half(d));
    put_five_bits(levels, to + 2, to + 6);
}

static void quantise_q5_1(const float *x, uint8_t *to)
{
    float low, high;
    smallest_and_largest(x, 32, &low, &high);
    float d = (high - low) / 31;
    uint8_t levels[32];
    find_levels(x, low, inverse(d), 0.5f, 127, levels); /* without a limit, unlike Q4_1 */
    put16(to, to_half(d));
    put16(to + 2, to_half(low));
    put_five_bits(levels, to + 4, to + 8);
}

/* What MAXPS does: the second operand unless the first is greater. */
static inline float maxps(float a, float b) { return a > b ? a : b; }

/* The largest magnitude in the order of upstream's AVX routine, which decides what a NaN does to it; then levels: to nearest even,
   -2^31 for what fits no int32, saturated to eight bits. Returns the magnitude; *sum: of the levels before that, which wraps. */
#if defined(__AVX2__)
static inline float avx_levels(const float *x, uint8_t *levels, int32_t *sum)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 v[4], most = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        most = i ? _mm256_max_ps(most, _mm256_andnot_ps(sign, v[i])) : _mm256_andnot_ps(sign, v[i]);
    }
    __m128 four = _mm_max_ps(_mm256_extractf128_ps(most, 1), _mm256_castps256_ps128(most));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    float largest = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    __m256 factor = _mm256_set1_ps(largest != 0 ? 127.0f / largest : 0);
    __m256i whole[4], total = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        whole[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
        total = _mm256_add_epi32(total, whole[i]);
    }
    /* packing takes the halves of a register in turn, which the permutation puts in order */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]), _mm256_packs_epi32(whole[2], whole[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)levels, bytes);
    __m128i part = _mm_add_epi32(_mm256_extracti128_si256(total, 1), _mm256_castsi256_si128(total));
    part = _mm_add_epi32(part, _mm_unpackhi_epi64(part, part));
    *sum = (int32_t)((uint32_t)_mm_cvtsi128_si32(part) + (uint32_t)_mm_extract_epi32(part, 1));
    return largest;
}
#elif defined(NEON)
static inline float32x4_t maxps4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

static inline float avx_levels(const float *x, uint8_t *levels, int32_t *sum)
{
    float32x4_t m[2];
    for (int i = 0; i < 2; i++) {
        m[i] = vabsq_f32(vld1q_f32(x + 4 * i));
        for (int j = 1; j < 4; j++)
            m[i] = maxps4(m[i], vabsq_f32(vld1q_f32(x + 8 * j + 4 * i)));
    }
    float32x4_t four = maxps4(m[1], m[0]), two = maxps4(four, vextq_f32(four, four, 2));
    float most = maxps(vgetq_lane_f32(two, 0), vgetq_lane_f32(two, 1)), factor = most != 0 ? 127.0f / most : 0;
    i32x16 total = {0};
    for (int i = 0; i < 32; i += 16) {
        int16x4_t narrow[4];
        for (int j = 0; j < 4; j++) {
            f32x16 nearest = (f32x16)vrndnq_f32(vmulq_n_f32(vld1q_f32(x + i + 4 * j), factor));
            i32x16 whole = truncated16(nearest);
            total = (i32x16)((u32x16)total + (u32x16)whole);
            narrow[j] = vqmovn_s32((int32x4_t)whole);
        }
        int8x8_t low = vqmovn_s16(vcombine_s16(narrow[0], narrow[1])), high = vqmovn_s16(vcombine_s16(narrow[2], narrow[3]));
        vst1q_s8((int8_t *)levels + i, vcombine_s8(low, high));
    }
    *sum = vaddvq_s32((int32x4_t)total);
    return most;
}
#else
static inline uint8_t saturated(int32_t level) { return (uint8_t)(int8_t)(level < -128 ? -128 : level > 127 ? 127 : level); }

static inline float avx_levels(const float *x, uint8_t *levels, int32_t *sum)
{
    float m[8];
    for (int i = 0; i < 8; i++)
        m[i] = maxps(maxps(maxps(fabsf(x[i]), fabsf(x[8 + i])), fabsf(x[16 + i])), fabsf(x[24 + i]));
    for (int i = 0; i < 4; i++)
        m[i] = maxps(m[4 + i], m[i]);
    for (int i = 0; i < 2; i++)
        m[i] = maxps(m[i], m[2 + i]);
    float most = maxps(m[0], m[1]), factor = most != 0 ? 127.0f / most : 0;
    uint32_t total = 0;
    for (int i = 0; i < 32; i++) {
        int32_t level = truncated(rintf(x[i] * factor));
        total += (uint32_t)level;
        levels[i] = saturated(level);
    }
    *sum = (int32_t)total;
    return most;
}
#endif

static void quantise_q8_0(const float *x, uint8_t *to)
{
    int32_t sum;
    put16(to, to_half(avx_levels(x, to + 2, &sum) / 127.0f));
}

static void quantise_q8_1(const float *x, uint8_t *to)
{
    int32_t sum;
    float d = avx_levels(x, to + 4, &sum) / 127.0f;
    put16(to, to_half(d));
    put16(to + 2, to_half(d == d ? made(d * (float)sum) : d));
}

static void each_f16(const f32 *x, uint8_t *to, int64_t n)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + LANES <= n; i += LANES) {
        __m512 v = _mm512_loadu_ps(x + i);
        if (_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q))
            break; /* NaN: one by one */
        _mm256_storeu_si256((__m256i *)(to + 2 * i), _mm512_cvtps_ph(v, 0));
    }
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        if (_mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)))
            break; /* NaN: one by one */
        _mm_storeu_si128((__m128i *)(to + 2 * i), _mm256_cvtps_ph(v, 0));
    }
#elif defined(NEON)
    for (; i + LANES <= n; i += LANES) {
        f32x16 v = load16(x + i);
        if (any(v != v))
            break; /* NaN: one by one */
        vst1_u8(to + 2 * i, vreinterpret_u8_f16(vcvt_f16_f32((float32x4_t)v)));
    }
#endif
    for (; i < n; i++)
        put16(to + 2 * i, to_half(x[i]));
}

typedef void (*block_function)(const float *x, uint8_t *to);

static block_function block_of(int32_t type)
{
    switch (type) {
    case GGML_TYPE_Q4_0: return quantise_q4_0;
    case GGML_TYPE_Q4_1: return quantise_q4_1;
    case GGML_TYPE_Q5_0: return quantise_q5_0;
    case GGML_TYPE_Q5_1: return quantise_q5_1;
    case GGML_TYPE_Q8_0: return quantise_q8_0;
    case GGML_TYPE_Q8_1: return quantise_q8_1;
    case GGML_TYPE_Q2_K: return quantise_q2_k;
    case GGML_TYPE_Q3_K: return quantise_q3_k;
    case GGML_TYPE_Q4_K: return quantise_q4_k;
    case GGML_TYPE_Q5_K: return quantise_q5_k;
    case GGML_TYPE_Q6_K: return quantise_q6_k;
    case GGML_TYPE_Q8_K: return quantise_q8_k;
    case GGML_TYPE_IQ4_NL: return quantise_iq4_nl;
    case GGML_TYPE_IQ4_XS: return quantise_iq4_xs;
    case GGML_TYPE_TQ1_0: return quantise_tq1_0;
    case GGML_TYPE_TQ2_0: return quantise_tq2_0;
    case GGML_TYPE_MXFP4: return quantise_mxfp4;
    case GGML_TYPE_NVFP4: return quantise_nvfp4;
    case GGML_TYPE_Q1_0: return quantise_q1_0;
    case GGML_TYPE_Q2_0: return quantise_q2_0;
    default: return NULL;
    }
}

bool can_quantise(int32_t type)
{
    return block_of(type) || type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

void quantise_row(int32_t type, const f32 *x, uint8_t *to, int64_t n)
{
    float copy[256];
    bool anywhere = (uintptr_t)x % sizeof *copy != 0; /* x may begin at any byte of a client's memory */
    block_function function = block_of(type);
    if (type == GGML_TYPE_F32)
        memcpy(to, x, (size_t)n * sizeof *x);
    else if (type == GGML_TYPE_F16)
        each_f16(x, to, n);
    else if (type == GGML_TYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            put16(to + 2 * i, to_bf16(x[i]));
    else
        for (int64_t i = 0; i < n; i += type_block[type], to += type_size[type]) {
            if (anywhere)
                memcpy(copy, x + i, (size_t)type_block[type] * sizeof *copy);
            function(anywhere ? copy : (const float *)x + i, to);
        }
}
