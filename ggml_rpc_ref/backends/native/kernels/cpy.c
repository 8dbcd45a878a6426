/* CPY: the elements of src0, in dst's type and layout. */
#include "copying.h"

KERNEL(cpy, GGML_OP_CPY, plan_copy);
