/* DUP: the elements of src0, in dst's type and layout. */
#include "copying.h"

KERNEL(dup, GGML_OP_DUP, plan_copy);
