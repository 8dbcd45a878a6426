/* CONT: see copying.cuh; the type stays. */
#include "copying.cuh"

KERNEL(cont_move) { move_elements(&g); }
