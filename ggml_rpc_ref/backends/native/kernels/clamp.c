/* CLAMP: x no larger than max, then no smaller than min; where a comparison with NaN decides, it is false. */
#include "rowwise.h"

static inline f32x16 lesser(f32x16 x, f32x16 y) { return choose(x < y, x, y); }
static inline f32x16 greater(f32x16 x, f32x16 y) { return choose(x > y, x, y); }

#define VECTOR_FUNCTION(x) greater(lesser(x, splat(clamp_max(g))), splat(clamp_min(g)))
#define NANOSECONDS 0.5
#include "elementwise.h"

KERNEL(clamp, GGML_OP_CLAMP, plan);
