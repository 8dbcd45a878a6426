/* LOG: the natural logarithm of each element. */
#include "elementwise.cuh"

UNARY_OP(log, log(x))
