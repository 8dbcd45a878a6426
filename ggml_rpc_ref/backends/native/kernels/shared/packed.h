/* Weights laid out for products with few columns, as when a token is generated: eight rows side by side, so that a register holds
   four successive levels of each, and nothing is added across a register.

   The bytes are as many as before. Types with a scale for each 32 elements and no minimum; only a variant that gains by it has any. */
#pragma once
#include "activations.h"

#define PACKED_ROWS 8

/* Bytes of eight rows of length k; 0: this variant packs no rows of the type. */
int64_t packed_size(int32_t type, int64_t k);

/* Pack eight rows, which lie `stride` bytes apart. */
void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to);

/* The products of eight packed rows with a row of activations that is ready: eight floats. */
void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to);
