/* SET_ROWS: rows of src0, rounded or quantised to dst's type, written where the indices in src1 say.

   A thread for each block of a row (each element of a plain type). Where an index occurs twice in a matrix the later row stays: a
   thread writes only if no later row has the same index. */
#include "quantise.cuh"

DEVICE int64_t index_of(const struct operand *t, int64_t i, int64_t j, int64_t k)
{
    const uint8_t *p = at(t, i, j % t->ne[1], k % t->ne[2], 0);
    return t->type == GGML_TYPE_I64 ? *(const int64_t *)p : i32_at(p);
}

KERNEL(set_rows)
{
    const struct operand *x = &g.src[0], *index = &g.src[1];
    int block = type_block[g.dst.type], size = type_size[g.dst.type];
    int64_t blocks[4] = {x->ne[0] / block, x->ne[1], x->ne[2], x->ne[3]};
    EACH(i, elements_of(x) / block) {
        struct place p = place_in(blocks, i);
        int64_t row = index_of(index, p.i1, p.i2, p.i3);
        if (row < 0 || row >= g.dst.ne[1]) {
            bad_index(&g);
            continue;
        }
        bool last = true;
        for (int64_t later = p.i1 + 1; later < x->ne[1]; later++)
            last &= index_of(index, later, p.i2, p.i3) != row;
        if (!last)
            continue;
        const uint8_t *from = at(x, p.i0 * block, p.i1, p.i2, p.i3);
        float values[MOST_QUANTISED];
        for (int k = 0; k < block; k++)
            values[k] = load(x->type, from + k * x->nb[0]);
        quantise_block(g.dst.type, values, at(&g.dst, 0, row, p.i2, p.i3) + p.i0 * size);
    }
}
