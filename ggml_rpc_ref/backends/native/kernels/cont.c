/* CONT: the elements of src0, in dst's type and layout. */
#include "copying.h"

KERNEL(cont, GGML_OP_CONT, plan_copy);
