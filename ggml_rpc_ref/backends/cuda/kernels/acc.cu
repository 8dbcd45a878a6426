/* ACC: src1 added to a region of src0; see regions.cuh. */
#include "regions.cuh"

KERNEL(acc)
{
    struct region r = {acc_offset(&g), {4, acc_nb1(&g), acc_nb2(&g), acc_nb3(&g)}};
    EACH(i, elements_of(&g.dst)) {
        struct place p;
        uint8_t *to = g.dst.data + 4 * i;
        const uint8_t *from = g.src[0].data + 4 * i;
        if (meets(&g, &r, 4 * i, &p))
            *(float *)to = f32_at(from) + f32_at(at_place(&g.src[1], p));
        else if (!acc_inplace(&g))
            move(to, from, 4);
    }
}
