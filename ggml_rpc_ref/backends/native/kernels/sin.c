/* SIN: the sine of x. */
#define FUNCTION(x) sinf(x)
#define NANOSECONDS 8
#include "elementwise.h"

KERNEL(sin, GGML_OP_SIN, plan);
