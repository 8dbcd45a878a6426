/* SIN: the sine of x. */
#include "rowwise.h"

static inline f32x16 sin16(f32x16 x)
{
    f32x16 sine, cosine;
    turns16(x, &sine, &cosine);
    return sine;
}

#define VECTOR_FUNCTION(x) sin16(x)
#define NANOSECONDS 4
#include "elementwise.h"

KERNEL(sin, GGML_OP_SIN, plan);
