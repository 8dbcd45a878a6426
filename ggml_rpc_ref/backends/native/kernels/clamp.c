/* CLAMP: x no larger than max, then no smaller than min; where a comparison with NaN decides, it is false. */
#define LESSER(x, y) ((x) < (y) ? (x) : (y))
#define GREATER(x, y) ((x) > (y) ? (x) : (y))
#define FUNCTION(x) GREATER(LESSER(x, clamp_max(g)), clamp_min(g))
#define NANOSECONDS 1
#include "elementwise.h"

KERNEL(clamp, GGML_OP_CLAMP, plan);
