/* DIAG_MASK_INF: the elements right of a diagonal replaced by -infinity. */
#include "triangle.cuh"

KEEPING(diag_mask_inf, p.i0 <= p.i1 + diag_mask_inf_n_past(&g), -INFINITY)
