/* DIAG: a square matrix with a row on its diagonal, zeros elsewhere. */
#include "kernel.cuh"

KERNEL(diag)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        uint8_t *to = at_place(&g.dst, p);
        if (p.i0 == p.i1)
            move(to, at(&g.src[0], p.i0, 0, p.i2, p.i3), 4);
        else
            *(float *)to = 0;
    }
}
