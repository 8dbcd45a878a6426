/* Dot products of one row of weights with one prepared row of activations. */
#pragma once
#include "activations.h"

/* Unpacked weights: levels, and a scale and minimum for each group. */
struct weights {
    const int8_t *level;
    const float *scale, *minimum;
};

/* The product of a row of F32 with one of F32, F16 or BF16. */
float dot_floats(const float *a, const uint8_t *b, int32_t type, int64_t n);

/* The product of F32 rows. */
static inline float dot_f32(const float *a, const float *b, int64_t n)
{
    return dot_floats(a, (const uint8_t *)b, GGML_TYPE_F32, n);
}

/* The product of an unpacked row. */
float dot_levels(const struct block_type *type, const struct weights *w, const struct activations *a, int64_t k);

/* The product of a row of blocks, without unpacking it to memory; NULL where this variant has none for the type. */
typedef float (*dot_function)(const uint8_t *row, const struct activations *a, int64_t k);
dot_function dot_of(int32_t type);
