/* SUM_ROWS and MEAN: the elements of a row added up in double, a block for each row. */
#pragma once
#include "kernel.cuh"

/* f: an expression of the row's sum, in float32. */
#define OF_ROW_SUM(name, f)                                                     \
    KERNEL(name)                                                                \
    {                                                                           \
        __shared__ double part[MOST_WARPS];                                     \
        EACH_ROW(row, rows_of(&g.dst)) {                                        \
            struct place p = place_of_row(&g.dst, row);                         \
            const uint8_t *x = at_place(&g.src[0], p);                          \
            double total = 0;                                                   \
            SHARE(i, g.src[0].ne[0]) total += f32_at(x + 4 * i);                \
            float sum = (float)block_sum(total, part);                          \
            if (threadIdx.x == 0)                                               \
                *(float *)at_place(&g.dst, p) = f;                              \
        }                                                                       \
    }
