/* ROPE: see rotation.cuh. */
#include "rotation.cuh"

KERNEL(rope) { rotate_rows(&g, false); }
