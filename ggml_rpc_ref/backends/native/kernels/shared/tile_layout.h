/* How the two sides of a tile lie in memory, for the files that multiply them. */
#pragma once
#include "tile.h"

/* The columns: levels, then scales, starts and weighted sums, each eight at a time; a word of strange columns at the beginning. */
struct columns {
    int8_t *level;      /* [k / 4][8][4] */
    float *scale;       /* [k / 32][8] */
    int32_t *start;     /* [k / group][8]: what the weights' offset adds, taken off to begin with */
    float *weighted;    /* [k / group][8] */
    uint32_t *strange;
    float *values;      /* instead of all these, for weights that are no blocks: [k][8] */
};

/* The rows: levels and the offset, then scales and minimums, sixteen at a time. */
struct tile {
    uint8_t *level;     /* [k / 4][16][4] */
    float *scale;       /* [k / group][16] */
    float *minimum;     /* [k / group][16]; NULL for types without */
    float *values;      /* instead of all these, for weights that are no blocks: [k][16] */
};

#define EACH _Pragma("GCC unroll 8") for (int j = 0; j < TILE_COLUMNS; j++)
