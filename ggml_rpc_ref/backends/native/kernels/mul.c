/* MUL: dst = src0 * src1. */
#define ARITHMETIC(x, y) ((x) * (y))
#include "arithmetic.h"

KERNEL(mul, GGML_OP_MUL, plan);
