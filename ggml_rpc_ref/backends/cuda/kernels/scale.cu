/* SCALE: dst = src0 * scale + bias. A bias of 0 is not added, so that -0 stays -0. */
#include "kernel.cuh"

KERNEL(scale)
{
    float factor = scale_scale(&g), bias = scale_bias(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float x = load(g.src[0].type, at_place(&g.src[0], p));
        store(g.dst.type, at_place(&g.dst, p), bias == 0 ? x * factor : fmaf(x, factor, bias));
    }
}
