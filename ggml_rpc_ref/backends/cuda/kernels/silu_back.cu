/* SILU_BACK: src0 s (1 + x (1 - s)) with x = src1, s = 1 / (1 + exp(-x)), a float; the rest in double, because 1 + x (1 - s) cancels. */
#include "kernel.cuh"

KERNEL(silu_back)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        double gradient = load(g.src[0].type, at_place(&g.src[0], p)), x = load(g.src[1].type, at_place(&g.src[1], p));
        float s = 1 / (float)(1 + exp(-x));
        store(g.dst.type, at_place(&g.dst, p), (float)(gradient * s * (1 + x * (1 - s))));
    }
}
