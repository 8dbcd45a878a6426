/* ADD: dst = src0 + src1. */
#define ARITHMETIC(x, y) ((x) + (y))
#include "arithmetic.h"

KERNEL(add, GGML_OP_ADD, plan);
