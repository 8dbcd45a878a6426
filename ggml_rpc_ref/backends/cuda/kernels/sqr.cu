/* SQR: the square of each element. */
#include "elementwise.cuh"

UNARY_OP(sqr, x * x)
