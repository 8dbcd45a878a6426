/* GET_REL_POS: for every pair of query and key position the embedding of their distance, bit by bit. */
#include "kernel.cuh"

KERNEL(get_rel_pos)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        move(at_place(&g.dst, p), at(&g.src[0], p.i0, p.i2 - p.i1 + g.dst.ne[1] - 1, 0, 0), 2);
    }
}
