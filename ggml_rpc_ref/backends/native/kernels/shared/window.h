/* The window of a convolution along one axis: tap k of output o covers input o * stride + k * dilation - padding. */
#pragma once
#include "elements.h"

struct axis {
    int64_t size, kernel, outputs, stride, padding, dilation;
};

/* The axis that an image of fewer dimensions does not have. */
static const struct axis point = {1, 1, 1, 1, 0, 1};

/* The input that a tap of an output covers; -1: padding. */
static inline int64_t covered(const struct axis *a, int64_t output, int64_t tap)
{
    int64_t input = output * a->stride + tap * a->dilation - a->padding;
    return input >= 0 && input < a->size ? input : -1;
}
