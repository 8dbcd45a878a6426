/* float32 as the nearest F16. */
#pragma once
#include "vector.h"

static inline f32x16 rounded_to_half(f32x16 v)
{
#if defined(__AVX512F__) && LANES == 16
    return (f32x16)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, 0));
#elif defined(__F16C__) && LANES == 8
    return (f32x16)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, 0));
#elif defined(NEON)
    return (f32x16)vcvt_f32_f16(vcvt_f16_f32((float32x4_t)v));
#else
    for (int i = 0; i < LANES; i++)
        v[i] = from_half(to_half(v[i]));
    return v;
#endif
}
