/* Products of sixteen rows of weights with eight columns at a time, for prompts: weights are unpacked once for all columns.

   Both sides are laid out so that what one instruction needs lies together: of the weights four successive levels of each of
   sixteen rows, of the columns four successive levels of each of eight. */
#pragma once
#include "activations.h"

#define TILE_ROWS 16
#define TILE_COLUMNS 8

/* From how many columns on tiles are worth their unpacking; 0: this variant has none. */
int tile_from(int32_t type);

/* Bytes of eight columns laid out, of one value of k each. */
int64_t tile_columns_size(int32_t type, int64_t k);

/* Lay out columns `first` to `first + count` of a matrix of src1, count at most 8. A row of a block type is prepared in `own`
   first (activations_size). Returns a bit for each column that is not finite. */
void tile_columns(int32_t weights, int32_t type, uint8_t *const *row, int count, int64_t k, uint8_t *own, uint8_t *to);

/* Columns of a layout that hold a NaN or an infinity, a bit for each. */
uint32_t tile_strange(int32_t type, int64_t k, const uint8_t *columns);

/* Bytes of sixteen rows laid out. */
int64_t tile_rows_size(int32_t type, int64_t k);

/* Lay out rows, count at most 16; the others become zeros. */
void tile_rows(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, uint8_t *to);

/* Multiply: to[column][row], sixteen floats for each of the columns, which are TILE_COLUMNS. */
void tile_multiply(int32_t type, const uint8_t *rows, const uint8_t *columns, int64_t k, float (*to)[TILE_ROWS]);
