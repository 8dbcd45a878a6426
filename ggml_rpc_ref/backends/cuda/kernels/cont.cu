/* CONT: see copying.cuh. */
#include "copying.cuh"

COPYING(cont)
