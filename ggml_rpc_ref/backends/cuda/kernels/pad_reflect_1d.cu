/* PAD_REFLECT_1D: each row padded on both sides with its mirror image; the outermost element is not repeated. */
#include "kernel.cuh"

KERNEL(pad_reflect_1d)
{
    int64_t last = g.src[0].ne[0] - 1;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t from = p.i0 - pad_reflect_1d_p0(&g), right = from < 0 ? -from : from;
        move(at_place(&g.dst, p), at(&g.src[0], right <= last ? right : 2 * last - right, p.i1, p.i2, p.i3), 4);
    }
}
