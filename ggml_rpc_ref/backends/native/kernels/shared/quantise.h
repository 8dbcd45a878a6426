/* float32 to every type that upstream's CPU backend writes, bit for bit. */
#pragma once
#include "half.h"
#include "kernel.h"

/* Whether `quantise_row` writes a type. */
bool can_quantise(int32_t type);

/* A row of n floats, a whole number of blocks. */
void quantise_row(int32_t type, const f32 *x, uint8_t *to, int64_t n);
