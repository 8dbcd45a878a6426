/* The functions of UNARY and GLU on sixteen floats. */
#pragma once
#include "vector.h"

/* 1 / (1 + e^-x). */
static inline f32x16 sigmoid16(f32x16 x) { return 1.0f / (1.0f + exp16(-x)); }

/* x / (1 + e^-x). */
static inline f32x16 silu16(f32x16 x) { return x / (1.0f + exp16(-x)); }

/* x/2 (1 + tanh u), which is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3); 0 up to -10, x from 10 on, as upstream. */
static inline f32x16 gelu16(f32x16 x)
{
    f32x16 u2 = x * 1.59576912f * fma16(x * x, splat(0.044715f), splat(1.0f));
    f32x16 value = x / (1.0f + exp16(-u2));
    return choose(x <= splat(-10.0f), splat(0), choose(x >= splat(10.0f), x, value));
}

static inline f32x16 gelu_quick16(f32x16 x) { return x * (1.0f / (1.0f + exp16(x * -1.702f))); }
