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

/* The low byte of (x * factor + shift) cut to an integer, at most `most` as a signed byte. */
static inline uint8_t level(float x, float factor, float shift, int most)
{
    int8_t q = (int8_t)truncated(x * factor + shift);
    return (uint8_t)(q < most ? q : most);
}

static void quantise_q4_0(const float *x, uint8_t *to)
{
    float d = largest(x, 32) / -8, factor = inverse(d);
    put16(to, to_half(d));
    for (int i = 0; i < 16; i++)
        to[2 + i] = (uint8_t)(level(x[i], factor, 8.5f, 15) | level(x[16 + i], factor, 8.5f, 15) << 4);
}

static void quantise_q4_1(const float *x, uint8_t *to)
{
    float low, high;
    smallest_and_largest(x, 32, &low, &high);
    float d = (high - low) / 15, factor = inverse(d);
    put16(to, to_half(d));
    put16(to + 2, to_half(low));
    for (int i = 0; i < 16; i++)
        to[4 + i] = (uint8_t)(level(x[i] - low, factor, 0.5f, 15) | level(x[16 + i] - low, factor, 0.5f, 15) << 4);
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
    float d = largest(x, 32) / -16, factor = inverse(d);
    uint8_t levels[32];
    for (int i = 0; i < 32; i++)
        levels[i] = level(x[i], factor, 16.5f, 31);
    put16(to, to_half(d));
    put_five_bits(levels, to + 2, to + 6);
}

static void quantise_q5_1(const float *x, uint8_t *to)
{
    float low, high;
    smallest_and_largest(x, 32, &low, &high);
    float d = (high - low) / 31, factor = inverse(d);
    uint8_t levels[32];
    for (int i = 0; i < 32; i++) /* unsigned and without a limit, unlike Q4_1 */
        levels[i] = (uint8_t)truncated((x[i] - low) * factor + 0.5f);
    put16(to, to_half(d));
    put16(to + 2, to_half(low));
    put_five_bits(levels, to + 4, to + 8);
}

/* What MAXPS does: the second operand unless the first is greater. */
static inline float maxps(float a, float b) { return a > b ? a : b; }

/* The largest magnitude in the order of upstream's AVX routine, which decides what a NaN does to it. */
static float avx_largest(const float *x)
{
    float m[8];
    for (int i = 0; i < 8; i++)
        m[i] = maxps(maxps(maxps(fabsf(x[i]), fabsf(x[8 + i])), fabsf(x[16 + i])), fabsf(x[24 + i]));
    for (int i = 0; i < 4; i++)
        m[i] = maxps(m[4 + i], m[i]);
    for (int i = 0; i < 2; i++)
        m[i] = maxps(m[i], m[2 + i]);
    return maxps(m[0], m[1]);
}

/* Levels before they are saturated: to nearest even, -2^31 for what fits no int32. Returns the largest magnitude. */
static float avx_levels(const float *x, int32_t *levels)
{
    float most = avx_largest(x), factor = most != 0 ? 127.0f / most : 0;
    for (int i = 0; i < 32; i++)
        levels[i] = truncated(rintf(x[i] * factor));
    return most;
}

static uint8_t saturated(int32_t level) { return (uint8_t)(int8_t)(level < -128 ? -128 : level > 127 ? 127 : level); }

static void quantise_q8_0(const float *x, uint8_t *to)
{
    int32_t levels[32];
    put16(to, to_half(avx_levels(x, levels) / 127.0f));
    for (int i = 0; i < 32; i++)
        to[2 + i] = saturated(levels[i]);
}

static void quantise_q8_1(const float *x, uint8_t *to)
{
    int32_t levels[32];
    uint32_t sum = 0; /* wraps */
    float d = avx_levels(x, levels) / 127.0f;
    for (int i = 0; i < 32; i++) {
        sum += (uint32_t)levels[i];
        to[4 + i] = saturated(levels[i]);
    }
    put16(to, to_half(d));
    put16(to + 2, to_half(d * (float)(int32_t)sum));
}

static void each_f16(const float *x, uint8_t *to, int64_t n)
{
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + LANES <= n; i += LANES) {
        __m512 v = _mm512_loadu_ps(x + i);
        if (_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q))
            break; /* NaN: one by one */
        _mm256_storeu_si256((__m256i *)(to + 2 * i), _mm512_cvtps_ph(v, 0));
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

void quantise_row(int32_t type, const float *x, uint8_t *to, int64_t n)
{
    block_function function = block_of(type);
    if (type == GGML_TYPE_F32)
        memcpy(to, x, (size_t)n * sizeof *x);
    else if (type == GGML_TYPE_F16)
        each_f16(x, to, n);
    else if (type == GGML_TYPE_BF16)
        for (int64_t i = 0; i < n; i++)
            put16(to + 2 * i, to_bf16(x[i]));
    else
        for (int64_t i = 0; i < n; i += type_block[type], to += type_size[type])
            function(x + i, to);
}
