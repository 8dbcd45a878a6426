/* ADD_REL_POS: a term per key row and a term per key column added to attention scores over an image.

   Upstream adds the row's term first above the diagonal, and the column's below it. Further matrices are copied only. */
#include "kernel.cuh"

KERNEL(add_rel_pos)
{
    const struct operand *scores = add_rel_pos_inplace(&g) ? &g.dst : &g.src[0], *columns = &g.src[1], *rows = &g.src[2];
    int64_t n = columns->ne[0], width = columns->ne[1];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t row = p.i0 / n, column = p.i0 % n;
        float score = f32_at(at_place(scores, p));
        if (p.i3 == 0) {
            float by_row = f32_at(at(rows, row, p.i1 % width, p.i1 / width, p.i2));
            float by_column = f32_at(at(columns, column, p.i1 % width, p.i1 / width, p.i2));
            score = row <= column ? score + by_row + by_column : score + by_column + by_row;
        }
        *(float *)at_place(&g.dst, p) = score;
    }
}
