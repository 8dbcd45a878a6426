/* Block types as what they all are: whole numbers under a scale for each 16 or 32 of them, less a minimum in some types.

       x = scale * level - minimum     level: int8

   The scale, the minimum and their use are rounded as upstream's dequantize_row_* does it, bit by bit. */
#pragma once
#include "half.h"
#include "kernel.h"

#define MOST_BLOCK 256

/* One block, unpacked. */
struct unpacked {
    int8_t level[MOST_BLOCK];
    float scale[MOST_BLOCK / 16];
    float minimum[MOST_BLOCK / 16];
};

/* How a type's blocks unpack. */
struct block_type {
    void (*unpack)(const uint8_t *block, struct unpacked *to); /* NULL: no block type, or one without kernels here */
    int group;          /* levels under one scale: 16 or 32 */
    bool has_minimum;   /* else `minimum` is not written */
    int lowest, highest; /* levels, whatever the bytes of a block are */
};

extern const struct block_type block_types[TYPES];

/* A row of any type to float32; the length is a whole number of blocks. */
void dequantise_row(int32_t type, const uint8_t *row, f32 *to, int64_t n);

/* A row of a block type to levels, and a scale and (where the type has them) a minimum for each group. */
void unpack_levels(int32_t type, const uint8_t *row, int64_t k, int8_t *level, float *scale, float *minimum);

/* Whether `dequantise_row` knows a type. */
bool can_dequantise(int32_t type);
