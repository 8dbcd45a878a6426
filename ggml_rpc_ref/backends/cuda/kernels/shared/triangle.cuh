/* Elements of every matrix kept where a condition on row and column holds, and replaced elsewhere. */
#pragma once
#include "kernel.cuh"

/* keep: an expression of the place p. */
#define KEEPING(name, keep, otherwise)                          \
    KERNEL(name)                                                \
    {                                                           \
        EACH(i, elements_of(&g.dst)) {                          \
            struct place p = place_of(&g.dst, i);               \
            uint8_t *to = at_place(&g.dst, p);                  \
            if (keep)                                           \
                move(to, at_place(&g.src[0], p), 4);            \
            else                                                \
                *(float *)to = otherwise;                       \
        }                                                       \
    }
