/* Rows of src1 made ready to be multiplied with blocks: rounded to eight bits as upstream rounds them, with the sums that the
   weights' offsets and minimums need.

   A row that holds an infinity or a NaN is not rounded: it is multiplied as it is, and so is one that a client has rounded to a
   level of -128 (`ready`): AVX2 multiplies magnitudes, and -128 has none in eight bits. */
#pragma once
#include "blocks.h"

/* One row. The arrays lie one after the other in scratch memory, each aligned to 64 bytes. */
struct activations {
    const int8_t *level;    /* k */
    const float *scale;     /* k / 32 */
    const int32_t *sum;     /* k / group: sums of levels */
    const float *weighted;  /* k / group: sums times the scale */
    const int32_t *ready;   /* one */
};

/* Bytes of a prepared row. */
int64_t activations_size(int64_t k, int group);

/* Where the arrays of a prepared row lie. */
struct activations activations_at(uint8_t *memory, int64_t k, int group);

/* Prepare a row of F32, or of Q8_0, Q8_1 or Q8_K, for weights of a type. */
void prepare_activations(int32_t weights, int32_t type, const uint8_t *row, int64_t k, uint8_t *memory);

/* Whether upstream rounds activations for such weights to Q8_K, with one scale for 256 of them. */
bool long_scales(int32_t weights);
