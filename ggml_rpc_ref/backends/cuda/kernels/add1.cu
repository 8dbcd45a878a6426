/* ADD1: a number, src1, added to every element. */
#include "adding.cuh"
#include "elementwise.cuh"

BINARY(add1, a + b)
ADDING_BLOCKS(add1, f32_at(g.src[1].data))
