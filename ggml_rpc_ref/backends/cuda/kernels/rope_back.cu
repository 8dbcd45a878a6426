/* ROPE_BACK: see rotation.cuh. */
#include "rotation.cuh"

KERNEL(rope_back) { rotate_rows(&g, true); }
