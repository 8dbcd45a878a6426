/* The functions that UNARY and GLU share, in float or double. */
#pragma once
#include "kernel.cuh"

template <typename real> DEVICE real silu(real x) { return x / (1 + exp(-x)); }

/* x/2 (1 + tanh u) is x sigmoid(2 u), with u = sqrt(2 / pi) (x + 0.044715 x^3). */
template <typename real> DEVICE real gelu(real x)
{
    return x / (1 + exp(-(real)1.5957691216057308 * x * (1 + (real)0.044715 * x * x)));
}

/* Where 1 + tanh u is 0 in double, an infinity on the other side of a gate gives NaN; the exponential would leave a tiny number. */
template <> __device__ inline double gelu(double x) { return 0.5 * x * (1 + tanh(0.79788456080286536 * x * (1 + 0.044715 * x * x))); }

/* Of F32 it is 0 up to -10 and x from 10 on, as upstream has it. */
DEVICE float gelu_of_f32(float x) { return x <= -10 ? 0 : x >= 10 ? x : gelu(x); }

/* Times the reciprocal, so that -inf gives NaN as upstream's does. */
template <typename real> DEVICE real gelu_quick(real x) { return x * (1 / (1 + exp((real)-1.702 * x))); }

template <typename real> DEVICE real gelu_erf(real x) { return (real)0.5 * x * (1 + erf(x * (real)0.70710678118654752440)); }
