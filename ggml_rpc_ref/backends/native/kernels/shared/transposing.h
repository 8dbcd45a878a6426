/* CONV_TRANSPOSE_1D and CONV_TRANSPOSE_2D: inputs times a kernel's taps, added up in float32 for each tap by itself, since neighbours
   of one tap's results are `stride` apart; then put together. With an F16 kernel inputs are rounded to F16 first. */
#pragma once
#include "rounded.h"
#include "elements.h"

/* A row of inputs as it is multiplied. */
static inline void read_inputs(const f32 *x, int64_t n, bool half, float *to)
{
    for (int64_t i = 0; i < n; i += LANES) {
        f32x16 v = load_part(x + i, n - i);
        store_part(to + i, half ? rounded_to_half(v) : v, n - i);
    }
}

/* sum += weight * x. */
static inline void add_products(float *sum, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        store_part(sum + i, fma16(load_part(x + i, n - i), splat(weight), load_part(sum + i, n - i)), n - i);
}

/* The sums of each tap, of n inputs, as a row of results. */
static inline void put_together(const float *sum, int64_t taps, int64_t n, int64_t stride, f32 *dst, int64_t length)
{
    memset(dst, 0, (size_t)(4 * length));
    for (int64_t k = 0; k < taps; k++, sum += n)
        for (int64_t i = 0; i < n; i++)
            dst[i * stride + k] += sum[i];
}
