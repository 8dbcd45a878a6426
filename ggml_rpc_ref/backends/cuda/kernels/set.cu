/* SET: src1 written over a region of src0, bit by bit; see regions.cuh. */
#include "regions.cuh"

KERNEL(set)
{
    struct region r = {set_offset(&g), {4, set_nb1(&g), set_nb2(&g), set_nb3(&g)}};
    EACH(i, elements_of(&g.dst)) {
        struct place p;
        uint8_t *to = g.dst.data + 4 * i;
        if (meets(&g, &r, 4 * i, &p))
            move(to, at_place(&g.src[1], p), 4);
        else if (!set_inplace(&g))
            move(to, g.src[0].data + 4 * i, 4);
    }
}
