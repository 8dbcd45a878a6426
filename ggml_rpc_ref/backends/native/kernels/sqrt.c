/* SQRT: the square root of x. */
#define FUNCTION(x) sqrtf(x)
#define NANOSECONDS 1
#include "elementwise.h"

KERNEL(sqrt, GGML_OP_SQRT, plan);
