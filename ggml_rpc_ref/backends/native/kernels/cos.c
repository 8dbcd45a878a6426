/* COS: the cosine of x. */
#include "rowwise.h"

static inline f32x16 cos16(f32x16 x)
{
    f32x16 sine, cosine;
    turns16(x, &sine, &cosine);
    return cosine;
}

#define VECTOR_FUNCTION(x) cos16(x)
#define NANOSECONDS 4
#include "elementwise.h"

KERNEL(cos, GGML_OP_COS, plan);
