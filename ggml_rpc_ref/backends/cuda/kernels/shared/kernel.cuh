/* What every kernel includes: what a node is, how to reach its elements, and the arithmetic that all share.

   Each kernel is a function of one argument, the node (`struct geometry`); Python packs it (`backends/cuda/geometry.py`) and says
   how many threads there are (`launches.py`). Sums are as written: the compiler is told not to fuse products and sums, so that
   rounding is the same here, on a processor, and in numpy; where a fused one is wanted it says fmaf. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define DEVICE static __device__ inline
#define READER static __device__ inline
#define TABLE static __device__ const

/* A tensor in ggml's order; type -1: there is none. */
struct operand {
    int64_t ne[4];
    int64_t nb[4];
    int32_t type;
    int32_t unused;
    uint8_t *data;
};

/* One node, all that a kernel is given. */
struct geometry {
    int32_t op_params[16];
    struct operand dst;
    struct operand src[10];
    int64_t more[4];   /* numbers that the launch of this kernel adds; each kernel says which */
    uint8_t *scratch;  /* memory for what one kernel of a node leaves to the next */
    int32_t *outcome;  /* 0, or 1 + the number of the step that found an index out of range */
    int32_t step;      /* this node's number */
    int32_t unused;
    uint64_t changes;  /* meanings of some versions that the op has (`enum change`): bit n for number n */
};

#include "numbers.h"

#if defined(EMULATED)
#include "half.h"
#define DYNAMIC_SHARED(name) uint8_t *name = emulated_dynamic_shared()
#else
#include <cuda_fp16.h>
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) uint8_t name[]

DEVICE float as_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t as_bits(float x) { return __float_as_uint(x); }
DEVICE float from_half(uint16_t h) { return __half2float(__ushort_as_half(h)); }
DEVICE float from_bf16(uint16_t h) { return as_float((uint32_t)h << 16); }

/* Every NaN becomes 0x7E00 with its sign. */
DEVICE uint16_t to_half(float x)
{
    return isnan(x) ? (uint16_t)((as_bits(x) >> 16 & 0x8000) | 0x7E00) : __half_as_ushort(__float2half_rn(x));
}

/* To nearest, ties to even; a NaN is cut, and bit 6 set so that it stays one. */
DEVICE uint16_t to_bf16(float x)
{
    uint32_t bits = as_bits(x);
    return (uint16_t)(isnan(x) ? bits >> 16 | 64 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
#endif

/* ----------------------------------------------------------------------------------------------------------- who am I */

/* i runs over this thread's share of n results. A step after one that found a bad index computes nothing: what it would read
   may not be there, and the run is refused. Every thread of a launch sees the same answer, because it was given before. */
#define EACH(i, n)                                                                        \
    for (int64_t i = *g.outcome ? (n) : (int64_t)blockIdx.x * blockDim.x + threadIdx.x;   \
         i < (n); i += (int64_t)gridDim.x * blockDim.x)

/* row runs over the rows that this block computes together. */
#define EACH_ROW(row, n) for (int64_t row = *g.outcome ? (n) : blockIdx.x; row < (n); row += gridDim.x)

/* i runs over this thread's share of a block's n elements. */
#define SHARE(i, n) for (int64_t i = threadIdx.x; i < (n); i += blockDim.x)

/* The prefix, because there are functions called cos, log, sin and sqrt already. */
#if defined(EMULATED)
#define ARGUMENT const struct geometry &g
#else
#define ARGUMENT const __grid_constant__ struct geometry g
#endif
#define KERNEL(name) extern "C" __global__ void kernel_##name(ARGUMENT)
/* So many threads a block; with so few registers that so many blocks fit a multiprocessor. */
#define BOUNDED_KERNEL(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) kernel_##name(ARGUMENT)

/* The step has met an index out of range. */
DEVICE void bad_index(const struct geometry *g) { atomicCAS(g->outcome, 0, g->step + 1); }

/* ----------------------------------------------------------------------------------------------------------- elements */

struct place {
    int64_t i0, i1, i2, i3;
};

/* Whether the op has a meaning of some versions (`spec.op_changes`). */
DEVICE bool has_change(const struct geometry *g, int change) { return g->changes >> change & 1; }

DEVICE bool present(const struct operand *t) { return t->type >= 0; }
DEVICE int64_t rows_of(const struct operand *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }
DEVICE int64_t elements_of(const struct operand *t) { return t->ne[0] * rows_of(t); }
DEVICE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
DEVICE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* The indices of element number i of something that has these dimensions, ne[0] counted first. */
DEVICE struct place place_in(const int64_t *ne, int64_t i)
{
    struct place p;
    p.i0 = i % ne[0];
    i /= ne[0];
    p.i1 = i % ne[1];
    i /= ne[1];
    p.i2 = i % ne[2];
    p.i3 = i / ne[2];
    return p;
}

DEVICE struct place place_of(const struct operand *t, int64_t i) { return place_in(t->ne, i); }

/* The indices of a row by its number; i0 is 0. */
DEVICE struct place place_of_row(const struct operand *t, int64_t row)
{
    struct place p = {0, row % t->ne[1], row / t->ne[1] % t->ne[2], row / t->ne[1] / t->ne[2]};
    return p;
}

/* Whether all rows begin at multiples of 16 bytes. */
DEVICE bool rows_are_aligned(const struct operand *t)
{
    return (((uint64_t)t->data | (uint64_t)t->nb[1] | (uint64_t)t->nb[2] | (uint64_t)t->nb[3]) & 15) == 0;
}

/* Where an element of a plain type lies. */
DEVICE uint8_t *at(const struct operand *t, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return t->data + i0 * t->nb[0] + i1 * t->nb[1] + i2 * t->nb[2] + i3 * t->nb[3];
}

DEVICE uint8_t *at_place(const struct operand *t, struct place p) { return at(t, p.i0, p.i1, p.i2, p.i3); }

/* The element that stands there when a tensor is repeated to larger dimensions. */
DEVICE uint8_t *at_repeated(const struct operand *t, struct place p)
{
    return at(t, p.i0 % t->ne[0], p.i1 % t->ne[1], p.i2 % t->ne[2], p.i3 % t->ne[3]);
}

DEVICE float f32_at(const uint8_t *p) { return *(const float *)p; }
DEVICE int32_t i32_at(const uint8_t *p) { return *(const int32_t *)p; }
DEVICE float f16_at(const uint8_t *p) { return from_half(*(const uint16_t *)p); }

/* A number of a plain type as float32. */
DEVICE float load(int32_t type, const uint8_t *p)
{
    switch (type) {
    case GGML_TYPE_F32: return *(const float *)p;
    case GGML_TYPE_F16: return from_half(*(const uint16_t *)p);
    case GGML_TYPE_BF16: return from_bf16(*(const uint16_t *)p);
    case GGML_TYPE_F64: return (float)*(const double *)p;
    case GGML_TYPE_I8: return (float)*(const int8_t *)p;
    case GGML_TYPE_I16: return (float)*(const int16_t *)p;
    case GGML_TYPE_I32: return (float)*(const int32_t *)p;
    default: return (float)*(const int64_t *)p;
    }
}

/* C's cast as x86-64 does it: towards zero; -2^31 for NaN and what does not fit. */
DEVICE int32_t truncated(float x) { return fabsf(x) < 0x1p31f ? (int32_t)x : INT32_MIN; }

/* A float32 as a number of a plain type: F32, F16, BF16 or I32. */
DEVICE void store(int32_t type, uint8_t *p, float x)
{
    switch (type) {
    case GGML_TYPE_F32: *(float *)p = x; break;
    case GGML_TYPE_F16: *(uint16_t *)p = to_half(x); break;
    case GGML_TYPE_BF16: *(uint16_t *)p = to_bf16(x); break;
    default: *(int32_t *)p = truncated(x);
    }
}

/* An element (or block) byte for byte: a float would change I32, and NaN. */
DEVICE void move(uint8_t *to, const uint8_t *from, int size)
{
    switch (size) {
    case 2: *(uint16_t *)to = *(const uint16_t *)from; break;
    case 4: *(uint32_t *)to = *(const uint32_t *)from; break;
    case 8: *(uint64_t *)to = *(const uint64_t *)from; break;
    default:
        for (int k = 0; k < size; k++)
            to[k] = from[k];
    }
}

/* The steepness of a head's ALiBi slope; 1 where there is none. */
DEVICE float slope_of(int64_t head, int64_t heads, float max_bias)
{
    if (!(max_bias > 0))
        return 1;
    int64_t whole = 1;
    while (2 * whole <= heads)
        whole *= 2;
    double step = head < whole ? (double)(head + 1) : (double)(head - whole) + 0.5;
    return (float)exp2(-(double)max_bias / (double)whole * step);
}

/* ------------------------------------------------------------------------------------------- what a block does together */

#define WARP 32
#define ALL 0xffffffffu
#define MOST_WARPS 32

DEVICE float warp_sum(float x)
{
    for (int step = WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(ALL, x, step);
    return x;
}

DEVICE float larger(float a, float b) { return b > a ? b : a; }

DEVICE float warp_max(float x)
{
    for (int step = WARP / 2; step; step /= 2)
        x = larger(x, __shfl_xor_sync(ALL, x, step));
    return x;
}

DEVICE double warp_sum_double(double x)
{
    for (int step = WARP / 2; step; step /= 2)
        x += __shfl_xor_sync(ALL, x, step);
    return x;
}

/* The sum over all threads of a block, which every thread gets. `part` is shared memory for MOST_WARPS numbers. */
DEVICE double block_sum(double x, double *part)
{
    x = warp_sum_double(x);
    __syncthreads(); /* what the last call left in `part` has been read */
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    double total = 0;
    for (int warp = 0; warp < (int)blockDim.x / WARP; warp++)
        total += part[warp];
    return total;
}

/* The largest over all threads of a block; NaN counts for nothing. */
DEVICE float block_max(float x, double *part)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    float top = -INFINITY;
    for (int warp = 0; warp < (int)blockDim.x / WARP; warp++)
        top = larger(top, (float)part[warp]);
    return top;
}

/* The largest of a number of 64 bits over all threads of a block. */
DEVICE int64_t block_last(int64_t x, double *part)
{
    for (int step = WARP / 2; step; step /= 2)
        x = max64(x, __shfl_xor_sync(ALL, x, step));
    int64_t *last = (int64_t *)part;
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        last[threadIdx.x / WARP] = x;
    __syncthreads();
    int64_t most = last[0];
    for (int warp = 1; warp < (int)blockDim.x / WARP; warp++)
        most = max64(most, last[warp]);
    return most;
}
