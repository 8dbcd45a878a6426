/* FILL: every element the same number. */
#include "kernel.cuh"

KERNEL(fill)
{
    EACH(i, elements_of(&g.dst)) store(g.dst.type, at_place(&g.dst, place_of(&g.dst, i)), fill_c(&g));
}
