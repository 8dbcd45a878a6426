/* PAD: a border around a tensor: zeros, or (circular) repetitions of the tensor. A negative padding cuts off.

   In some versions there are no parameters: zeros follow in every dimension. */
#include "kernel.cuh"

/* The index in the source; -1 outside. */
DEVICE int64_t source_index(const struct geometry *g, int dim, int64_t i)
{
    int64_t n = g->src[0].ne[dim], from = i;
    bool behind = has_change(g, CHANGE_PAD_BEFORE);
    if (!behind)
        from -= pad_padding(g, 2 * dim);
    if (!behind && pad_circular(g))
        return (from % n + n) % n;
    return from < n ? from : -1;
}

KERNEL(pad)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t i0 = source_index(&g, 0, p.i0), i1 = source_index(&g, 1, p.i1), i2 = source_index(&g, 2, p.i2);
        int64_t i3 = source_index(&g, 3, p.i3);
        uint8_t *to = at_place(&g.dst, p);
        if (i0 < 0 || i1 < 0 || i2 < 0 || i3 < 0)
            *(float *)to = 0;
        else
            move(to, at(&g.src[0], i0, i1, i2, i3), 4);
    }
}
