/* ARANGE: evenly spaced numbers, rounded once. */
#include "kernel.cuh"

KERNEL(arange)
{
    double start = arange_start(&g), step = arange_step(&g);
    EACH(i, elements_of(&g.dst)) *(float *)at_place(&g.dst, place_of(&g.dst, i)) = (float)(start + step * (double)i);
}
