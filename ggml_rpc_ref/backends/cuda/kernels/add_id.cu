/* ADD_ID: to each row of src0 the row of src1 added that an index in src2 picks. */
#include "kernel.cuh"

KERNEL(add_id)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int32_t row = i32_at(at(&g.src[2], p.i1, p.i2, 0, 0));
        if (row < 0 || row >= g.src[1].ne[1])
            bad_index(&g);
        else
            *(float *)at_place(&g.dst, p) = f32_at(at_place(&g.src[0], p)) + f32_at(at(&g.src[1], p.i0, row, 0, 0));
    }
}
