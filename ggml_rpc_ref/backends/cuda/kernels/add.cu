/* ADD: the sum of two tensors, the second one repeated to the first one's dimensions. */
#include "elementwise.cuh"

BINARY(add, a + b)
