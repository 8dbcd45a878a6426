/* GET_ROWS: rows of src0, picked by the indices in src1, as F32 (I32 of I32). */
#include "blocks.cuh"

KERNEL(get_rows)
{
    const struct operand *table = &g.src[0];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int32_t index = i32_at(at(&g.src[1], p.i1, p.i2, p.i3, 0));
        if (index < 0 || index >= table->ne[1]) {
            bad_index(&g);
            continue;
        }
        const uint8_t *row = at(table, 0, index, p.i2, p.i3);
        if (table->type == g.dst.type) /* bit by bit: a float would change I32, and NaN */
            *(uint32_t *)at_place(&g.dst, p) = *(const uint32_t *)(row + 4 * p.i0);
        else
            *(float *)at_place(&g.dst, p) = element(table->type, row, p.i0);
    }
}
