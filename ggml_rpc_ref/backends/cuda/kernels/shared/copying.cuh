/* DUP, CPY and CONT: the elements of one tensor, counted in ne order, written to another in its type. */
#pragma once
#include "blocks.cuh"
#include "quantise.cuh"

/* The same type: a thread for each element (or block), byte for byte. */
DEVICE void move_elements(const struct geometry *node)
{
    const struct geometry &g = *node;
    const struct operand *from = &g.src[0], *to = &g.dst;
    int block = type_block[to->type], size = type_size[to->type];
    int64_t a[4] = {from->ne[0] / block, from->ne[1], from->ne[2], from->ne[3]};
    int64_t b[4] = {to->ne[0] / block, to->ne[1], to->ne[2], to->ne[3]};
    EACH(i, elements_of(to) / block) move(at_place(to, place_in(b, i)), at_place(from, place_in(a, i)), size);
}

/* Another type: a thread for each element of a plain result. src0 may be of blocks. */
DEVICE void convert_elements(const struct geometry *node)
{
    const struct geometry &g = *node;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.src[0], i);
        const uint8_t *row = at(&g.src[0], 0, p.i1, p.i2, p.i3);
        float x = type_block[g.src[0].type] > 1 ? element(g.src[0].type, row, p.i0) : load(g.src[0].type, row + p.i0 * g.src[0].nb[0]);
        store(g.dst.type, at_place(&g.dst, place_of(&g.dst, i)), x);
    }
}

/* To blocks: a thread for each block of the result, whose elements are one row's of src0. */
DEVICE void quantise_elements(const struct geometry *node)
{
    const struct geometry &g = *node;
    const struct operand *from = &g.src[0];
    int block = type_block[g.dst.type];
    EACH(i, elements_of(&g.dst) / block) {
        float x[256];
        struct place p = place_of(from, i * block);
        for (int k = 0; k < block; k++)
            x[k] = load(from->type, at(from, p.i0 + k, p.i1, p.i2, p.i3));
        quantise_block(g.dst.type, x, g.dst.data + i * type_size[g.dst.type]); /* the result is contiguous */
    }
}

#define COPYING(name)                                           \
    KERNEL(name##_move) { move_elements(&g); }                  \
    KERNEL(name##_convert) { convert_elements(&g); }            \
    KERNEL(name##_quantise) { quantise_elements(&g); }
