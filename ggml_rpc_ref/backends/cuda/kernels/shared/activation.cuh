/* The functions that UNARY and GLU share, in float or double. */
#pragma once
#include "kernel.cuh"

template <typename real> DEVICE real silu(real x) { return x / (1 + exp(-x)); }

/* x/2 (1 + tanh u) is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3). 0 where 1 + tanh u, which is 2 / (1 + e^-2u), is
   below 2^-25 and so 0 in float: what is multiplied with an infinity shows it. */
template <typename real> DEVICE real gelu(real x)
{
    real e = exp(-(real)1.5957691216057308 * x * (1 + (real)0.044715 * x * x));
    return e >= 67108864 ? x * 0 : x / (1 + e);
}

/* Of F32 it is 0 up to -10 and x from 10 on, as upstream has it. */
DEVICE float gelu_of_f32(float x) { return x <= -10 ? 0 : x >= 10 ? x : gelu(x); }

/* Times the reciprocal, so that -inf gives NaN as upstream's does. */
template <typename real> DEVICE real gelu_quick(real x) { return x * (1 / (1 + exp((real)-1.702 * x))); }

template <typename real> DEVICE real gelu_erf(real x) { return (real)0.5 * x * (1 + erf(x * (real)0.70710678118654752440)); }
