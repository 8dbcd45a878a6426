/* The functions of UNARY and GLU on sixteen floats. */
#pragma once
#include "vector.h"

/* 1 / (1 + e^-x). */
static inline f32x16 sigmoid16(f32x16 x) { return 1.0f / (1.0f + exp16(-x)); }

/* x / (1 + e^-x). */
static inline f32x16 silu16(f32x16 x) { return x / (1.0f + exp16(-x)); }

/* x/2 (1 + tanh u), as below but without the two ends: -inf gives NaN. 0 where 1 + tanh u, which is 2 / (1 + e^-2u), is below 2^-25
   and so 0 in float32: what is multiplied with an infinity shows it. */
static inline f32x16 gelu_of_half16(f32x16 x)
{
    f32x16 e = exp16(x * -1.59576912f * fma16(x * x, splat(0.044715f), splat(1.0f)));
    return choose(e >= splat(0x1p26f), x * 0.0f, x / (1.0f + e));
}

/* x/2 (1 + tanh u), which is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3); 0 up to -10, x from 10 on, as upstream. */
static inline f32x16 gelu16(f32x16 x)
{
    return choose(x <= splat(-10.0f), splat(0), choose(x >= splat(10.0f), x, gelu_of_half16(x)));
}

static inline f32x16 gelu_quick16(f32x16 x) { return x * (1.0f / (1.0f + exp16(x * -1.702f))); }

static inline f32x16 magnitude16(f32x16 x) { return (f32x16)((i32x16)x & 0x7FFFFFFF); }
static inline f32x16 with_sign_of(f32x16 x, f32x16 size) { return (f32x16)((i32x16)size | ((i32x16)x & INT32_MIN)); }

/* e^x - 1: by its Taylor polynomial where that difference would cancel. */
static inline f32x16 expm1_16(f32x16 x)
{
    f32x16 p = splat(1.0f / 40320);
    p = fma16(p, x, splat(1.0f / 5040));
    p = fma16(p, x, splat(1.0f / 720));
    p = fma16(p, x, splat(1.0f / 120));
    p = fma16(p, x, splat(1.0f / 24));
    p = fma16(p, x, splat(1.0f / 6));
    p = fma16(p, x, splat(0.5f));
    return choose(magnitude16(x) < splat(0.5f), fma16(p * x, x, x), exp16(x) - 1.0f);
}

/* 1 - 2 / (e^2x + 1); for small x a polynomial of least error, since that difference would cancel (tanhf of the Cephes library). */
static inline f32x16 tanh16(f32x16 x)
{
    f32x16 size = magnitude16(x), square = x * x, p = splat(-5.70498872745e-3f);
    p = fma16(p, square, splat(2.06390887954e-2f));
    p = fma16(p, square, splat(-5.37397155531e-2f));
    p = fma16(p, square, splat(1.33314422036e-1f));
    p = fma16(p, square, splat(-3.33332819422e-1f));
    f32x16 large = with_sign_of(x, 1.0f - 2.0f / (exp16(size + size) + 1.0f));
    return choose(size < splat(0.625f), fma16(p * square, x, x), large);
}

/* The logarithm of a positive normal number: of its mantissa, from sqrt(1/2) to sqrt(2), by a polynomial of least error (logf of the
   Cephes library), and ln 2 in two parts for each unit of the exponent. */
static inline f32x16 log_of_normal16(f32x16 x)
{
    i32x16 shifted = (i32x16)((u32x16)x - 0x3F3504F3), exponent = shifted >> 23; /* sqrt(1/2) */
    f32x16 f = (f32x16)((shifted & 0x007FFFFF) + 0x3F3504F3) - 1.0f, n = __builtin_convertvector(exponent, f32x16), z = f * f;
    f32x16 p = splat(7.0376836292e-2f);
    p = fma16(p, f, splat(-1.1514610310e-1f));
    p = fma16(p, f, splat(1.1676998740e-1f));
    p = fma16(p, f, splat(-1.2420140846e-1f));
    p = fma16(p, f, splat(1.4249322787e-1f));
    p = fma16(p, f, splat(-1.6668057665e-1f));
    p = fma16(p, f, splat(2.0000714765e-1f));
    p = fma16(p, f, splat(-2.4999993993e-1f));
    p = fma16(p, f, splat(3.3333331174e-1f));
    f32x16 rest = fma16(n, splat(-2.12194440e-4f), p * f * z) - 0.5f * z;
    return fma16(n, splat(0.693359375f), f + rest);
}

/* The natural logarithm; where a lane is no positive normal number, the library's. */
static inline f32x16 log16(f32x16 x)
{
    f32x16 result = log_of_normal16(x);
    i32x16 normal = ((i32x16)x >= 0x00800000) & ((i32x16)x < 0x7F800000);
    if (__builtin_expect(any(~normal), 0))
        for (int k = 0; k < LANES; k++)
            if (!normal[k])
                result[k] = logf(x[k]);
    return result;
}

/* ln(1 + e^x), and x above 20; what is lost of e^x in the sum is added again. */
static inline f32x16 softplus16(f32x16 x)
{
    f32x16 e = exp16(choose(x > splat(20), splat(20), x)), sum = 1.0f + e;
    f32x16 value = log_of_normal16(sum) + (e - (sum - 1.0f)) / sum;
    return choose(x > splat(20), x, choose(x != x, x, value));
}

/* 0 up to -3, 1 from 3 on, rising evenly between; 0 for NaN. */
static inline f32x16 hard_sigmoid16(f32x16 x)
{
    f32x16 part = (x + 3.0f) / 6.0f;
    return choose(part > splat(0), choose(part < splat(1), part, splat(1)), splat(0));
}

/* x/2 (1 + erf(x / sqrt(2))), where 1 + erf is 2 - q above 0 and q below, q = erfc(|x| / sqrt(2)): that is e^(-x^2 / 2) times
   twice a polynomial in t = 1 / (1 + 0.35 |x|), interpolated at ten Chebyshev points of |x| from 0 to 9, with a relative error of 5e-8. From
   5.5426 on q is below 2^-25, where 1 + erf is 0 or 2 in float32: what is multiplied with an infinity shows it. */
static inline f32x16 gelu_erf16(f32x16 x)
{
    f32x16 size = magnitude16(x), t = 1.0f / fma16(size, splat(0.35f), splat(1.0f)), p = splat(-0.019061252322542806f);
    p = fma16(p, t, splat(0.08932273503176302f));
    p = fma16(p, t, splat(-0.12742725258702592f));
    p = fma16(p, t, splat(-0.011747041622994371f));
    p = fma16(p, t, splat(0.11907934375798547f));
    p = fma16(p, t, splat(0.0290384864532557f));
    p = fma16(p, t, splat(0.14638273052203912f));
    p = fma16(p, t, splat(0.13412925541746842f));
    p = fma16(p, t, splat(0.14031952974584574f));
    p = fma16(p, t, splat(-3.6536670323679834e-05f));
    f32x16 q = choose(size >= splat(5.5426f), splat(0), 2.0f * p * exp16(-0.5f * x * x));
    return 0.5f * x * choose(x > splat(0), 2.0f - q, q);
}

/* Towards zero, down and up; to the nearest, halves away from zero. */
#if defined(__AVX512F__) && LANES == 16
#define WHOLE16(mode, neon, function) (f32x16) _mm512_roundscale_ps((__m512)x, mode)
#elif defined(__AVX2__) && LANES == 8
#define WHOLE16(mode, neon, function) (f32x16) _mm256_round_ps((__m256)x, mode)
#elif defined(NEON)
#define WHOLE16(mode, neon, function) (f32x16) neon((float32x4_t)x)
#else
#define WHOLE16(mode, neon, function) each_lane(x, function)
static inline f32x16 each_lane(f32x16 x, float (*function)(float))
{
    for (int k = 0; k < LANES; k++)
        x[k] = function(x[k]);
    return x;
}
#endif
static inline f32x16 trunc16(f32x16 x) { return WHOLE16(0x0B, vrndq_f32, truncf); }
static inline f32x16 floor16(f32x16 x) { return WHOLE16(0x09, vrndmq_f32, floorf); }
static inline f32x16 ceil16(f32x16 x) { return WHOLE16(0x0A, vrndpq_f32, ceilf); }
static inline f32x16 round16(f32x16 x)
{
    f32x16 whole = trunc16(x), more = choose(magnitude16(x - whole) >= splat(0.5f), splat(1.0f), splat(0));
    return whole + with_sign_of(x, more);
}
