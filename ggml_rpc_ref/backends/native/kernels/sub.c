/* SUB: dst = src0 - src1. */
#define ARITHMETIC(x, y) ((x) - (y))
#include "arithmetic.h"

KERNEL(sub, GGML_OP_SUB, plan);
