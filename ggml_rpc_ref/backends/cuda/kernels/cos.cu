/* COS: the cosine of each element. */
#include "elementwise.cuh"

UNARY_OP(cos, cos(x))
