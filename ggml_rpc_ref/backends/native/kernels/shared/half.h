/* F16 and BF16 to float and back, as upstream's scalar routines do it. */
#pragma once
#include <stdint.h>
#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

static inline float as_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t as_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* A NaN keeps its sign and payload and becomes quiet. */
static inline float from_half(uint16_t h)
{
#if defined(__F16C__)
    return _cvtsh_ss(h);
#elif defined(__aarch64__)
    __fp16 x;
    memcpy(&x, &h, sizeof x);
    return x;
#else
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF;
    if (exponent == 31)
        return as_float(sign | 0x7F800000 | mantissa << 13 | (mantissa ? 0x400000 : 0));
    if (exponent == 0) { /* below 2^-14: the mantissa counts units of 2^-24 */
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    return as_float(sign | (exponent + 112) << 23 | mantissa << 13);
#endif
}

/* To nearest, ties to even; every NaN becomes 0x7E00 with its sign. */
static inline uint16_t to_half(float f)
{
    uint32_t bits = as_bits(f), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return (uint16_t)(sign | 0x7E00);
#if defined(__F16C__)
    return (uint16_t)_cvtss_sh(f, 0);
#elif defined(__aarch64__)
    __fp16 x = (__fp16)f;
    uint16_t half;
    memcpy(&half, &x, sizeof half);
    return half;
#else
    if (magnitude >= 0x47800000) /* 2^16 and more */
        return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x38800000) { /* below 2^-14: added to 0.5, the mantissa's last bits count units of 2^-24, rounded */
        float sum = as_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (as_bits(sum) - 0x3F000000));
    }
    uint32_t rounded = magnitude + 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (rounded - 0x38000000) >> 13);
#endif
}

static inline float from_bf16(uint16_t h) { return as_float((uint32_t)h << 16); }

/* To nearest, ties to even; a NaN is cut, and bit 6 set so that it stays one. */
static inline uint16_t to_bf16(float f)
{
    uint32_t bits = as_bits(f);
    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
