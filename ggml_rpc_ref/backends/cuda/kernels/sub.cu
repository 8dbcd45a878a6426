/* SUB: the difference of two tensors, the second one repeated to the first one's dimensions. */
#include "elementwise.cuh"

BINARY(sub, a - b)
