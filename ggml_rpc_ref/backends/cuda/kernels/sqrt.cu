/* SQRT: the square root of each element. */
#include "elementwise.cuh"

UNARY_OP(sqrt, sqrt(x))
