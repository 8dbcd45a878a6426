/* COS: the cosine of x. */
#define FUNCTION(x) cosf(x)
#define NANOSECONDS 8
#include "elementwise.h"

KERNEL(cos, GGML_OP_COS, plan);
