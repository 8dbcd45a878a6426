/* DIV: the quotient of two tensors, the second one repeated to the first one's dimensions. */
#include "elementwise.cuh"

BINARY(div, a / b)
