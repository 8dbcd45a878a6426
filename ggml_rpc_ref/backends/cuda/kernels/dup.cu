/* DUP: see copying.cuh. */
#include "copying.cuh"

COPYING(dup)
