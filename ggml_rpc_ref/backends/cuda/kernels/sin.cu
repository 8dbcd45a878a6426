/* SIN: the sine of each element. */
#include "elementwise.cuh"

UNARY_OP(sin, sin(x))
