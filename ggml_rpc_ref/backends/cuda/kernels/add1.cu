/* ADD1: a number, src1, added to every element. */
#include "kernel.cuh"

KERNEL(add1)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        store(g.dst.type, at_place(&g.dst, p), load(g.src[0].type, at_place(&g.src[0], p)) + load(g.src[1].type, g.src[1].data));
    }
}
