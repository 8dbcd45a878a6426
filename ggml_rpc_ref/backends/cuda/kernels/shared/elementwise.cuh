/* Ops that compute each element of the result by itself: a thread for each. */
#pragma once
#include "kernel.cuh"

/* dst = f, of a from src0 and b from src1, which is repeated to dst's dimensions. */
#define BINARY(name, f)                                                     \
    KERNEL(name)                                                            \
    {                                                                       \
        EACH(i, elements_of(&g.dst)) {                                      \
            struct place p = place_of(&g.dst, i);                           \
            float a = load(g.src[0].type, at_place(&g.src[0], p));          \
            float b = load(g.src[1].type, at_repeated(&g.src[1], p));       \
            store(g.dst.type, at_place(&g.dst, p), f);                      \
        }                                                                   \
    }

/* dst = f, of x from src0. In double where the result is shorter than float32, so that it is rounded once. */
#define UNARY_OP(name, f)                                                   \
    template <typename real> DEVICE real name##_of(real x) { return f; }    \
    KERNEL(name)                                                            \
    {                                                                       \
        EACH(i, elements_of(&g.dst)) {                                      \
            struct place p = place_of(&g.dst, i);                           \
            float x = load(g.src[0].type, at_place(&g.src[0], p));          \
            float y = g.dst.type == GGML_TYPE_F32 ? name##_of(x) : (float)name##_of((double)x); \
            store(g.dst.type, at_place(&g.dst, p), y);                      \
        }                                                                   \
    }
