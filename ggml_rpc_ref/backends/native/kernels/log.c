/* LOG: the natural logarithm of x. */
#define FUNCTION(x) logf(x)
#define NANOSECONDS 5
#include "elementwise.h"

KERNEL(log, GGML_OP_LOG, plan);
