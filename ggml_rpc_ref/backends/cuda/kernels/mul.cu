/* MUL: the product of two tensors, the second one repeated to the first one's dimensions. */
#include "elementwise.cuh"

BINARY(mul, a * b)
