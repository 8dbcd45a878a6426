/* CPY: see copying.cuh. */
#include "copying.cuh"

COPYING(cpy)
