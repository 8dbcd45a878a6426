/* GET_ROWS_BACK: rows of src0 added up where the indices in src1 say.

   get_rows_back_clear   zeros
   get_rows_back         a thread for each column, row after row: their order decides how the sums are rounded
*/
#include "kernel.cuh"

KERNEL(get_rows_back_clear)
{
    EACH(i, elements_of(&g.dst)) *(float *)at_place(&g.dst, place_of(&g.dst, i)) = 0;
}

KERNEL(get_rows_back)
{
    EACH(i, g.dst.ne[0])
        for (int64_t row = 0; row < g.src[1].ne[0]; row++) {
            int32_t to = i32_at(at(&g.src[1], row, 0, 0, 0));
            if (to < 0 || to >= g.dst.ne[1])
                bad_index(&g);
            else
                *(float *)at(&g.dst, i, to, 0, 0) += load(g.src[0].type, at(&g.src[0], i, row, 0, 0));
        }
}
