/* SQR: dst = x^2. */
#define FUNCTION(x) ((x) * (x))
#define NANOSECONDS 0.6
#include "elementwise.h"

KERNEL(sqr, GGML_OP_SQR, plan);
