/* What SOFT_MAX and FLASH_ATTN_EXT share. */
#pragma once
#include <math.h>
#include <stdint.h>

/* ALiBi's slope of a head; 1 unless max_bias > 0. */
static inline float slope_of(int64_t head, int64_t heads, float max_bias)
{
    if (!(max_bias > 0))
        return 1;
    int64_t whole = 1;
    while (2 * whole <= heads)
        whole *= 2;
    double step = head < whole ? (double)(head + 1) : (double)(head - whole) + 0.5;
    return (float)exp2(-(double)max_bias / (double)whole * step);
}
