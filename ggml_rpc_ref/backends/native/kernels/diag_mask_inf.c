/* DIAG_MASK_INF: a copy with -inf in the columns beyond n_past + row. */
#define FIRST(g, row) 0
#define END(g, row) ((row) + diag_mask_inf_n_past(g) + 1)
#define VALUE (-INFINITY)
#include "triangle.h"

KERNEL(diag_mask_inf, GGML_OP_DIAG_MASK_INF, plan);
