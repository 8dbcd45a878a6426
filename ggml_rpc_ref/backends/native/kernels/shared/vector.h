/* Several float32 at a time: as many as a register has (LANES), sixteen at the most, whatever the names here say. The compiler would
   keep vectors that are wider than a register in memory. */
#pragma once
#include "kernel.h"
#include "half.h"

#if defined(NEON)
#include <arm_neon.h>
#endif

#if defined(LANES) /* a file that needs a certain number of them has said so */
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float f32x16 __attribute__((vector_size(4 * LANES)));
typedef int32_t i32x16 __attribute__((vector_size(4 * LANES)));
typedef uint32_t u32x16 __attribute__((vector_size(4 * LANES))); /* their sums and differences wrap */
/* Half as many, so that their doubles fill a register. */
typedef float half_floats __attribute__((vector_size(2 * LANES)));
typedef int32_t half_integers __attribute__((vector_size(2 * LANES)));
typedef double doubles __attribute__((vector_size(4 * LANES)));
typedef int64_t long_integers __attribute__((vector_size(4 * LANES)));

static inline f32x16 load16(const void *p)
{
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store16(void *p, f32x16 v) { memcpy(p, &v, sizeof v); }

static inline f32x16 splat(float x) { return x - (f32x16){0}; }

/* The first n floats, n < LANES; the others are 0. What is masked is not touched. */
#if defined(__AVX512F__) && LANES == 16
static inline f32x16 load_some(const void *p, int64_t n) { return (f32x16)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void store_some(void *p, f32x16 v, int64_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v); }
#elif defined(__AVX2__) && LANES == 8
static inline __m256i first_lanes(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline f32x16 load_some(const void *p, int64_t n) { return (f32x16)_mm256_maskload_ps(p, first_lanes(n)); }
static inline void store_some(void *p, f32x16 v, int64_t n) { _mm256_maskstore_ps(p, first_lanes(n), (__m256)v); }
#else
static inline f32x16 load_some(const void *p, int64_t n)
{
    f32x16 v = {0};
    memcpy(&v, p, n * sizeof(float));
    return v;
}

static inline void store_some(void *p, f32x16 v, int64_t n) { memcpy(p, &v, n * sizeof(float)); }
#endif

/* A vector of the n floats that are left of a row, however many; lanes beyond them are 0, and are not stored. */
static inline f32x16 load_part(const void *p, int64_t n) { return n >= LANES ? load16(p) : load_some(p, n); }

static inline void store_part(void *p, f32x16 v, int64_t n)
{
    if (n >= LANES)
        store16(p, v);
    else
        store_some(p, v, n);
}

/* a * b + c, rounded once where the processor can. */
static inline f32x16 fma16(f32x16 a, f32x16 b, f32x16 c)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && LANES == 8
    return (f32x16)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(NEON)
    return (f32x16)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

static inline f32x16 sqrt16(f32x16 v)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__) && LANES == 8
    return (f32x16)_mm256_sqrt_ps((__m256)v);
#elif defined(NEON)
    return (f32x16)vsqrtq_f32((float32x4_t)v);
#else
    for (int i = 0; i < LANES; i++)
        v[i] = sqrtf(v[i]);
    return v;
#endif
}

/* F16 and BF16 to float32. */
static inline f32x16 load_f16(const void *p)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#elif defined(__F16C__) && LANES == 8
    return (f32x16)_mm256_cvtph_ps(_mm_loadu_si128(p));
#elif defined(NEON)
    return (f32x16)vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
#else
    uint16_t bits[LANES];
    f32x16 v = {0};
    memcpy(bits, p, sizeof bits);
    for (int i = 0; i < LANES; i++)
        v[i] = from_half(bits[i]);
    return v;
#endif
}

static inline f32x16 load_bf16(const void *p)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16);
#endif
    typedef uint16_t shorts __attribute__((vector_size(2 * LANES)));
    typedef uint32_t words __attribute__((vector_size(4 * LANES)));
    shorts bits;
    memcpy(&bits, p, sizeof bits);
    return (f32x16)(__builtin_convertvector(bits, words) << 16);
}

/* A vector of a row of F32, F16 or BF16. */
static inline f32x16 load_floats(const void *p, int32_t type)
{
    return type == GGML_TYPE_F16 ? load_f16(p) : type == GGML_TYPE_BF16 ? load_bf16(p) : load16(p);
}

/* Signed bytes as float32. GCC 12 makes sixteen instructions of most conversions of vectors that change their width. */
static inline f32x16 load_levels(const int8_t *p)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
#elif defined(__AVX2__) && LANES == 8
    return (f32x16)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
#elif defined(NEON)
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return (f32x16)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
#else
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    bytes levels;
    memcpy(&levels, p, sizeof levels);
    return __builtin_convertvector(__builtin_convertvector(levels, i32x16), f32x16);
#endif
}

/* Whole numbers of eight bits to memory. */
static inline void store_levels(int8_t *p, i32x16 v)
{
#if defined(__AVX512F__) && LANES == 16
    _mm_storeu_si128((void *)p, _mm512_cvtepi32_epi8((__m512i)v));
#elif defined(NEON)
    int8x16_t bytes = vreinterpretq_s8_s32((int32x4_t)v); /* the lowest byte of each: every second one, twice */
    bytes = vuzp1q_s8(bytes, bytes);
    int32_t four = vgetq_lane_s32(vreinterpretq_s32_s8(vuzp1q_s8(bytes, bytes)), 0);
    memcpy(p, &four, sizeof four);
#else
    typedef int8_t bytes __attribute__((vector_size(LANES)));
    bytes narrow = __builtin_convertvector(v, bytes);
    memcpy(p, &narrow, sizeof narrow);
#endif
}

static inline doubles widened(half_floats v)
{
#if defined(__AVX512F__) && LANES == 16
    return (doubles)_mm512_cvtps_pd((__m256)v);
#elif defined(__AVX2__) && LANES == 8
    return (doubles)_mm256_cvtps_pd((__m128)v);
#elif defined(NEON)
    return (doubles)vcvt_f64_f32((float32x2_t)v);
#else
    return __builtin_convertvector(v, doubles);
#endif
}

/* Both halves in double precision, added. */
static inline doubles halves64(f32x16 v)
{
    half_floats half[2];
    memcpy(half, &v, sizeof v);
    return widened(half[0]) + widened(half[1]);
}

static inline double sum_doubles(doubles v)
{
    double total = 0;
    for (int i = 0; i < LANES / 2; i++)
        total += v[i];
    return total;
}

/* a where the mask is set (-1), else b. */
static inline f32x16 choose(i32x16 mask, f32x16 a, f32x16 b)
{
#if defined(__AVX2__) && LANES == 8
    return (f32x16)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
#elif defined(NEON)
    return (f32x16)vbslq_f32((uint32x4_t)mask, (float32x4_t)a, (float32x4_t)b);
#else
    return (f32x16)(((i32x16)a & mask) | ((i32x16)b & ~mask));
#endif
}

/* Whether a mask is set in any lane. */
static inline bool any(i32x16 mask)
{
#if defined(__AVX512F__) && LANES == 16
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__) && LANES == 8
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(NEON)
    return vmaxvq_u32((uint32x4_t)mask) != 0;
#else
    int32_t found = 0;
    for (int i = 0; i < LANES; i++)
        found |= mask[i];
    return found;
#endif
}

#if defined(__AVX2__) && LANES >= 8
/* The upper half of a register's lanes added to the lower one, and so on: the same sums as below, without memory. */
static inline float sum16(f32x16 v)
{
#if LANES == 16
    __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#else
    __m256 eight = (__m256)v;
#endif
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static inline __m128 larger4(__m128 x, __m128 y)
{
    return _mm_blendv_ps(y, x, _mm_or_ps(_mm_cmp_ps(x, y, _CMP_GT_OQ), _mm_cmp_ps(y, y, _CMP_UNORD_Q)));
}

/* The largest lane; NaN lanes are passed over unless all are. */
static inline float max16(f32x16 v)
{
#if LANES == 16
    __m256 x = _mm512_castps512_ps256((__m512)v), y = _mm512_extractf32x8_ps((__m512)v, 1);
    __m256 eight = _mm256_blendv_ps(y, x, _mm256_or_ps(_mm256_cmp_ps(x, y, _CMP_GT_OQ), _mm256_cmp_ps(y, y, _CMP_UNORD_Q)));
#else
    __m256 eight = (__m256)v;
#endif
    __m128 four = larger4(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = larger4(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(larger4(two, _mm_movehdup_ps(two)));
}
#elif defined(NEON)
/* As above: the same sums as below. */
static inline float sum16(f32x16 v)
{
    float32x2_t two = vadd_f32(vget_low_f32((float32x4_t)v), vget_high_f32((float32x4_t)v));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

static inline float32x2_t larger2(float32x2_t x, float32x2_t y)
{
    return vbsl_f32(vorr_u32(vcgt_f32(x, y), vmvn_u32(vceq_f32(y, y))), x, y);
}

/* The largest lane; NaN lanes are passed over unless all are. */
static inline float max16(f32x16 v)
{
    float32x2_t two = larger2(vget_low_f32((float32x4_t)v), vget_high_f32((float32x4_t)v));
    return vget_lane_f32(larger2(two, vrev64_f32(two)), 0);
}
#else
static inline float sum16(f32x16 v)
{
    float s[LANES];
    memcpy(s, &v, sizeof v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            s[i] += s[i + width];
    return s[0];
}

/* The largest lane; NaN lanes are passed over unless all are. */
static inline float max16(f32x16 v)
{
    float s[LANES];
    memcpy(s, &v, sizeof v);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            s[i] = s[i] > s[i + width] || s[i + width] != s[i + width] ? s[i] : s[i + width];
    return s[0];
}
#endif

/* n, the nearest integer to x / ln 2, in the low bits of *shifted, and e^r with r = x - n ln 2, |r| <= ln 2 / 2: by a polynomial
   whose relative error there is at most 2^-25 (interpolated at the seven Chebyshev points), added up in pairs: a chain of seven
   sums would take longer than all else. */
static inline f32x16 exp_of_rest(f32x16 x, f32x16 *shifted)
{
    const f32x16 magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    *shifted = fma16(x, splat(1.44269504f), magic);
    f32x16 n = *shifted - magic;
    f32x16 r = fma16(n, splat(-0.693145752f), x); /* ln 2 in two parts: the first has few bits, so that n times it is exact */
    r = fma16(n, splat(-1.42860677e-6f), r);
    f32x16 square = r * r, low = 1.0f + r, middle = fma16(r, splat(0.16666415333747864f), splat(0.5f));
    f32x16 high = fma16(r, splat(0.008375127799808979f), splat(0.04166635125875473f));
    high = fma16(square, splat(0.0013941110810264945f), high);
    return fma16(square, fma16(square, high, middle), low);
}

/* exp16 where a result may be no normal number: 2^n in two factors, so that what is below the smallest one comes out. What is
   masked is left out of that: a product below the smallest normal number may take some 100 cycles. */
static __attribute__((noinline, unused)) f32x16 exp_far(f32x16 x)
{
    i32x16 none = x < splat(-104.0f);
    if (!any(~none))
        return splat(0);
    f32x16 shifted, held = choose(none, splat(0), choose(x > splat(130.0f), splat(130.0f), x)), p = exp_of_rest(held, &shifted);
    i32x16 exponent = (i32x16)shifted - (i32x16)splat(12582912.0f), half = exponent >> 1;
    f32x16 two_to_half = (f32x16)((half + 127) << 23), two_to_rest = (f32x16)((exponent - half + 127) << 23);
    return choose(x != x, x, choose(none, splat(0), p * two_to_half * two_to_rest));
}

/* e to the power x, within 2 units of the last place; 0 below -104, infinite above 88.8, NaN for NaN. */
static inline f32x16 exp16(f32x16 x)
{
    if (__builtin_expect(any(~((f32x16)((i32x16)x & 0x7FFFFFFF) < splat(87.0f))), 0))
        return exp_far(x);
    f32x16 shifted, p = exp_of_rest(x, &shifted);
    return (f32x16)((i32x16)p + ((i32x16)shifted << 23)); /* n is added to the exponent */
}

/* Sine and cosine, within some units of the last place for |x| up to 2^30; the angle is reduced in double precision. */
static inline void sincos16(f32x16 x, f32x16 *sine, f32x16 *cosine)
{
    half_floats half[2];
    f32x16 r;
    i32x16 quadrant = {0};
    memcpy(half, &x, sizeof x);
    for (int k = 0; k < 2; k++) {
        doubles wide = widened(half[k]);
        doubles turns = wide * 0.63661977236758134308 + 6755399441055744.0; /* 2 / pi; 1.5 * 2^52 rounds to an integer */
        half_integers low = __builtin_convertvector((long_integers)turns & 3, half_integers);
        turns -= 6755399441055744.0;
        half[k] = __builtin_convertvector(wide - turns * 1.57079632679489661923, half_floats);
        memcpy((char *)&quadrant + sizeof low * k, &low, sizeof low);
    }
    memcpy(&r, half, sizeof r);
    f32x16 square = r * r;
    f32x16 s = fma16(square, splat(1.0f / 362880), splat(-1.0f / 5040));
    s = fma16(s, square, splat(1.0f / 120));
    s = fma16(s, square, splat(-1.0f / 6));
    s = fma16(s * square, r, r);
    f32x16 c = fma16(square, splat(1.0f / 40320), splat(-1.0f / 720));
    c = fma16(c, square, splat(1.0f / 24));
    c = fma16(c, square, splat(-0.5f));
    c = fma16(c, square, splat(1.0f));
    i32x16 odd = -(quadrant & 1), minus_sine = (quadrant & 2) << 30, minus_cosine = ((quadrant + 1) & 2) << 30;
    *sine = (f32x16)((i32x16)choose(odd, c, s) ^ minus_sine);
    *cosine = (f32x16)((i32x16)choose(odd, s, c) ^ minus_cosine);
}

/* Sine and cosine of any number: where one is too large, or none, the library's. */
static inline void turns16(f32x16 x, f32x16 *sine, f32x16 *cosine)
{
    sincos16(x, sine, cosine);
    if (__builtin_expect(any(~((f32x16)((i32x16)x & 0x7FFFFFFF) < splat(0x1p30f))), 0))
        for (int k = 0; k < LANES; k++)
            if (!(fabsf(x[k]) < 0x1p30f)) { /* also NaN and infinities */
                (*sine)[k] = sinf(x[k]);
                (*cosine)[k] = cosf(x[k]);
            }
}
