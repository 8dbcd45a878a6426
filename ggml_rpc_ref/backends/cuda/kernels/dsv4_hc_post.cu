/* DSV4_HC_POST: a layer's output put back into the streams, which are mixed with each other; a thread for each result.

   In some versions comb may be absent: each stream keeps its own residual. */
#include "kernel.cuh"

enum { X, RESIDUAL, POST, COMB };

KERNEL(dsv4_hc_post)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        double sum = (double)f32_at(at(&g.src[X], p.i0, p.i2, 0, 0)) * f32_at(at(&g.src[POST], p.i1, p.i2, 0, 0));
        if (!present(&g.src[COMB]))
            sum += f32_at(at_place(&g.src[RESIDUAL], p));
        for (int64_t stream = 0; present(&g.src[COMB]) && stream < g.dst.ne[1]; stream++)
            sum += (double)f32_at(at(&g.src[RESIDUAL], p.i0, stream, p.i2, 0)) * f32_at(at(&g.src[COMB], p.i1, stream, p.i2, 0));
        *(float *)at_place(&g.dst, p) = (float)sum;
    }
}
