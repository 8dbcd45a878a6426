/* DIAG_MASK_ZERO: the elements right of a diagonal replaced by 0. */
#include "triangle.cuh"

KEEPING(diag_mask_zero, p.i0 <= p.i1 + diag_mask_zero_n_past(&g), 0)
