/* CLAMP: each element limited to the range between two bounds; by comparison, so that NaN becomes the upper one. */
#include "kernel.cuh"

KERNEL(clamp)
{
    float low = clamp_min(&g), high = clamp_max(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float x = load(g.src[0].type, at_place(&g.src[0], p)), below = x < high ? x : high;
        store(g.dst.type, at_place(&g.dst, p), below > low ? below : low);
    }
}
