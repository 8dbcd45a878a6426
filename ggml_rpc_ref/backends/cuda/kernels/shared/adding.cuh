/* ADD and ADD1 of a block type: a thread for each block of the result, or each element of a plain one. */
#pragma once
#include "blocks.cuh"
#include "quantise.cuh"

/* number: what is added to the element of src0 at the place p, an expression of it. */
#define ADDING_BLOCKS(name, number)                                                                                    \
    KERNEL(name##_blocks)                                                                                              \
    {                                                                                                                  \
        int block = type_block[g.dst.type];                                                                            \
        int64_t blocks[4] = {g.dst.ne[0] / block, g.dst.ne[1], g.dst.ne[2], g.dst.ne[3]};                              \
        EACH(i, elements_of(&g.dst) / block) {                                                                         \
            struct place to = place_in(blocks, i), p = to;                                                             \
            float sum[MOST_QUANTISED];                                                                                 \
            for (int k = 0; k < block; k++) {                                                                          \
                p.i0 = to.i0 * block + k;                                                                              \
                sum[k] = element(g.src[0].type, at(&g.src[0], 0, p.i1, p.i2, p.i3), p.i0) + number;                    \
            }                                                                                                          \
            quantise_block(g.dst.type, sum, at_place(&g.dst, to));                                                     \
        }                                                                                                              \
    }
