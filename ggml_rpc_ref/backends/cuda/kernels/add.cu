/* ADD: the sum of two tensors, the second one repeated to the first one's dimensions. */
#include "adding.cuh"
#include "elementwise.cuh"

BINARY(add, a + b)
ADDING_BLOCKS(add, f32_at(at_place(&g.src[1], p)))
