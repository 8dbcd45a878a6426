/* ROLL: all elements shifted along each dimension; those that leave at one end re-enter at the other. */
#include "kernel.cuh"

DEVICE int64_t rolled(const struct geometry *g, int dim, int64_t i)
{
    int64_t n = g->dst.ne[dim];
    return (i - roll_shift(g, dim) + n) % n; /* shifts are by less than n */
}

KERNEL(roll)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        struct place q = {rolled(&g, 0, p.i0), rolled(&g, 1, p.i1), rolled(&g, 2, p.i2), rolled(&g, 3, p.i3)};
        move(at_place(&g.dst, p), at_place(&g.src[0], q), 4);
    }
}
