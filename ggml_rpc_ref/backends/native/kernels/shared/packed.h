/* Weights laid out for products with few columns, as when a token is generated: as many rows side by side as a register has lanes of
   32 bits, so that it holds four successive levels of each, and nothing is added across a register.

   The bytes are as many as before. Types with a scale for each 32 elements and no minimum; only a variant that gains by it has any. */
#pragma once
#include "activations.h"

#if defined(__AVX512VNNI__)
#define PACKED_ROWS 16
#else
#define PACKED_ROWS 8
#endif

/* Bytes of a group of PACKED_ROWS rows of length k; 0: this variant packs no rows of the type. */
int64_t packed_size(int32_t type, int64_t k);

/* Pack a group of rows, which lie `stride` bytes apart. */
void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to);

/* The products of a packed group with a row of activations that is ready: PACKED_ROWS floats. */
void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to);
