/* DIAG_MASK_ZERO: a copy with 0 in the columns beyond n_past + row. */
#define FIRST(g, row) 0
#define END(g, row) ((row) + diag_mask_zero_n_past(g) + 1)
#define VALUE 0
#include "triangle.h"

KERNEL(diag_mask_zero, GGML_OP_DIAG_MASK_ZERO, plan);
