/* What MUL_MAT and MUL_MAT_ID share: some rows of weights times up to eight rows of src1.

   Block types: rows of src1 are rounded to eight bits first, as upstream does, and multiplied as integers. A row with a NaN or an
   infinity is multiplied in float32, as the oracle does. F32, F16 and BF16 are multiplied in float32.

   With many rows of src1 and a variant that has tiles, sixteen rows of weights are unpacked for all of them (`tile.h`); else each
   row of weights is multiplied with one row of src1 after the other (`dot.h`). */
#pragma once
#include "dot.h"
#include "packed.h"
#include "tile.h"

/* The types of a product, and the length of its rows. */
struct product {
    int32_t weights, type;
    int64_t k;
    bool tiled;
};

/* The product of a node whose weights meet about n rows of src1 at a time. */
struct product product_of(const struct geometry *g, int64_t n);

/* Whether there are kernels for it. */
bool can_multiply(const struct geometry *g);

/* Up to eight rows of src1, and where the results of each begin. */
struct batch {
    int count;
    uint8_t *row[TILE_COLUMNS];
    f32 *to[TILE_COLUMNS];
};

/* Bytes of a batch once it is prepared, and of the scratch memory that each thread needs. */
int64_t prepared_size(const struct product *p);
int64_t multiply_scratch(const struct product *p);

/* Prepare a batch: round it, and lay it out for tiles. */
void prepare_batch(const struct product *p, const struct batch *b, uint8_t *own, uint8_t *to);

/* Unpack up to sixteen rows of weights for tiles, to the beginning of `own`; nothing where the product is not tiled. */
void unpack_weights(const struct product *p, const uint8_t *weights, int64_t stride, int count, uint8_t *own);

/* Multiply a packed group of rows, of which the first has the number i, with a prepared batch; `weights` are the same as they came. */
void multiply_packed_rows(const struct product *p, const uint8_t *packed, const uint8_t *weights, int64_t stride, int64_t i,
                          const struct batch *b, const uint8_t *prepared, uint8_t *own);

/* The phase of packing a node's src0 to dst: a unit is a group of rows. */
void pack_groups(const struct node *node, int64_t first, int64_t last, const struct work *work);

/* Multiply these rows, of which the first has the number i, with a prepared batch. */
void multiply_batch(const struct product *p, const uint8_t *weights, int64_t stride, int count, int64_t i, const struct batch *b,
                    const uint8_t *prepared, uint8_t *own);
