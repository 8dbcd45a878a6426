/* Sixteen float32 at a time, on any processor: the compiler splits what is wider than a register. */
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define LANES 16
typedef float f32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef double f64x8 __attribute__((vector_size(64)));
typedef float f32x8 __attribute__((vector_size(32)));

static inline f32x16 load16(const void *p)
{
    f32x16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store16(void *p, f32x16 v) { memcpy(p, &v, sizeof v); }

static inline f32x16 splat(float x) { return x - (f32x16){0}; }

/* The first n floats, n < 16; the others are 0. */
static inline f32x16 load_some(const void *p, int64_t n)
{
    f32x16 v = {0};
    memcpy(&v, p, n * sizeof(float));
    return v;
}

static inline void store_some(void *p, f32x16 v, int64_t n) { memcpy(p, &v, n * sizeof(float)); }

/* a * b + c, rounded once where the processor can. */
static inline f32x16 fma16(f32x16 a, f32x16 b, f32x16 c)
{
#if defined(__AVX512F__)
    return (f32x16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    union {
        f32x16 v;
        __m256 half[2];
    } x = {a}, y = {b}, z = {c};
    z.half[0] = _mm256_fmadd_ps(x.half[0], y.half[0], z.half[0]);
    z.half[1] = _mm256_fmadd_ps(x.half[1], y.half[1], z.half[1]);
    return z.v;
#elif defined(__aarch64__)
    union {
        f32x16 v;
        float32x4_t quarter[4];
    } x = {a}, y = {b}, z = {c};
    for (int i = 0; i < 4; i++)
        z.quarter[i] = vfmaq_f32(z.quarter[i], x.quarter[i], y.quarter[i]);
    return z.v;
#else
    return a * b + c;
#endif
}

/* Both halves in double precision, added. */
static inline f64x8 halves64(f32x16 v)
{
    f32x8 half[2];
    memcpy(half, &v, sizeof v);
    return __builtin_convertvector(half[0], f64x8) + __builtin_convertvector(half[1], f64x8);
}

/* a where the mask is set (-1), else b. */
static inline f32x16 choose(i32x16 mask, f32x16 a, f32x16 b)
{
    return (f32x16)(((i32x16)a & mask) | ((i32x16)b & ~mask));
}

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

/* e to the power x, within 2 units of the last place; 0 below -104, infinite above 88.8, NaN for NaN.

   x = n ln 2 + r with |r| <= ln 2 / 2; 2^n from the exponent bits, in two factors so that results below the smallest normal
   number come out; e^r by its Taylor polynomial of degree 7, whose next term is below 2^-27. */
static inline f32x16 exp16(f32x16 x)
{
    const f32x16 magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    f32x16 clamped = choose(x < splat(-150.0f), splat(-150.0f), choose(x > splat(130.0f), splat(130.0f), x));
    f32x16 shifted = fma16(clamped, splat(1.44269504f), magic);
    f32x16 n = shifted - magic;
    f32x16 r = fma16(n, splat(-0.693145752f), clamped); /* ln 2 in two parts: the first has few bits, so that n times it is exact */
    r = fma16(n, splat(-1.42860677e-6f), r);
    f32x16 p = splat(1.0f / 5040);
    p = fma16(p, r, splat(1.0f / 720));
    p = fma16(p, r, splat(1.0f / 120));
    p = fma16(p, r, splat(1.0f / 24));
    p = fma16(p, r, splat(1.0f / 6));
    p = fma16(p, r, splat(0.5f));
    p = fma16(p, r, splat(1.0f));
    p = fma16(p, r, splat(1.0f));
    i32x16 exponent = (i32x16)shifted - (i32x16)magic;
    i32x16 half = exponent >> 1;
    f32x16 two_to_half = (f32x16)((half + 127) << 23), two_to_rest = (f32x16)((exponent - half + 127) << 23);
    return choose(x != x, x, p * two_to_half * two_to_rest);
}

/* Sine and cosine, within some units of the last place for |x| up to 2^30; the angle is reduced in double precision. */
static inline void sincos16(f32x16 x, f32x16 *sine, f32x16 *cosine)
{
    f32x8 half[2];
    f32x16 r;
    i32x16 quadrant;
    memcpy(half, &x, sizeof x);
    for (int k = 0; k < 2; k++) {
        f64x8 wide = __builtin_convertvector(half[k], f64x8);
        f64x8 turns = wide * 0.63661977236758134308 + 6755399441055744.0; /* 2 / pi; 1.5 * 2^52 rounds to an integer */
        typedef int64_t i64x8 __attribute__((vector_size(64)));
        typedef int32_t i32x8 __attribute__((vector_size(32)));
        i32x8 low = __builtin_convertvector((i64x8)turns & 3, i32x8);
        turns -= 6755399441055744.0;
        half[k] = __builtin_convertvector(wide - turns * 1.57079632679489661923, f32x8);
        memcpy((char *)&quadrant + 32 * k, &low, sizeof low);
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
