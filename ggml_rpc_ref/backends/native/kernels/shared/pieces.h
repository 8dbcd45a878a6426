/* Rows of any type, a piece at a time, as float32. */
#pragma once
#include "blocks.h"
#include "elements.h"
#include "quantise.h"

/* Elements of a piece: a whole number of blocks of every type. */
#define PIECE 256

/* n elements of a dense row from the one with number i on, i a multiple of PIECE. */
static inline void read_piece(const struct layout *l, const uint8_t *row, int64_t i, int64_t n, float *value)
{
    dequantise_row(l->type, row + row_size(l->type, i), value, n);
}

static inline void write_piece(const struct layout *l, uint8_t *row, int64_t i, int64_t n, const float *value)
{
    quantise_row(l->type, value, row + row_size(l->type, i), n);
}
