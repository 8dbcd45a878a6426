/* DIV: dst = src0 / src1. */
#define ARITHMETIC(x, y) ((x) / (y))
#include "arithmetic.h"

KERNEL(div, GGML_OP_DIV, plan);
