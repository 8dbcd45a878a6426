/* Kernels that compute each element of a row of F32 from the elements at its place. */
#pragma once
#include "kernel.h"
#include "vector.h"

/* For all i below n: dst[i] = EXPRESSION of the vector x, and of y. The last elements of a row are computed as a vector too, the
   lanes beyond the end being zeros. */
#define MAP1(dst, a, n, EXPRESSION)                          \
    do {                                                     \
        int64_t i_ = 0;                                      \
        for (; i_ + LANES <= (n); i_ += LANES) {             \
            f32x16 x = load16((a) + i_);                     \
            store16((dst) + i_, EXPRESSION);                 \
        }                                                    \
        if (i_ < (n)) {                                      \
            f32x16 x = load_some((a) + i_, (n) - i_);        \
            store_some((dst) + i_, EXPRESSION, (n) - i_);    \
        }                                                    \
    } while (0)

#define MAP2(dst, a, b, n, EXPRESSION)                                                        \
    do {                                                                                      \
        int64_t i_ = 0;                                                                       \
        for (; i_ + LANES <= (n); i_ += LANES) {                                              \
            f32x16 x = load16((a) + i_), y = load16((b) + i_);                                \
            store16((dst) + i_, EXPRESSION);                                                  \
        }                                                                                     \
        if (i_ < (n)) {                                                                       \
            f32x16 x = load_some((a) + i_, (n) - i_), y = load_some((b) + i_, (n) - i_);      \
            store_some((dst) + i_, EXPRESSION, (n) - i_);                                     \
        }                                                                                     \
    } while (0)

/* Whether a tensor is F32 with dense rows that begin at multiples of four bytes. */
static inline bool plain_f32(const struct layout *l) { return is_f32(l) && dense_rows(l); }
