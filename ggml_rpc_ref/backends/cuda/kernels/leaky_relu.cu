/* LEAKY_RELU: negative elements made smaller. */
#include "kernel.cuh"

KERNEL(leaky_relu)
{
    float slope = leaky_relu_negative_slope(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float x = load(g.src[0].type, at_place(&g.src[0], p));
        store(g.dst.type, at_place(&g.dst, p), (x > 0 ? x : 0) + slope * (x < 0 ? x : 0));
    }
}
