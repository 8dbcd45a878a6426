/* The functions of UNARY and GLU on sixteen floats. */
#pragma once
#include "vector.h"

/* 1 / (1 + e^-x). */
static inline f32x16 sigmoid16(f32x16 x) { return 1.0f / (1.0f + exp16(-x)); }

/* x / (1 + e^-x). */
static inline f32x16 silu16(f32x16 x) { return x / (1.0f + exp16(-x)); }

/* x/2 (1 + tanh u), as below but without the two ends: -inf gives NaN. */
static inline f32x16 gelu_of_half16(f32x16 x)
{
    f32x16 u2 = x * 1.59576912f * fma16(x * x, splat(0.044715f), splat(1.0f));
    return x / (1.0f + exp16(-u2));
}

/* x/2 (1 + tanh u), which is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3); 0 up to -10, x from 10 on, as upstream. */
static inline f32x16 gelu16(f32x16 x)
{
    return choose(x <= splat(-10.0f), splat(0), choose(x >= splat(10.0f), x, gelu_of_half16(x)));
}

static inline f32x16 gelu_quick16(f32x16 x) { return x * (1.0f / (1.0f + exp16(x * -1.702f))); }
