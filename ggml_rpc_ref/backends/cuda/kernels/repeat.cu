/* REPEAT: copies of a tensor, side by side, until they fill a larger one. */
#include "kernel.cuh"

KERNEL(repeat)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        move(at_place(&g.dst, p), at_repeated(&g.src[0], p), type_size[g.dst.type]);
    }
}
