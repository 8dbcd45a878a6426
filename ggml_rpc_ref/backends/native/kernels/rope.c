/* ROPE: pairs of elements turned by angles that grow with the position. */
#include "rotation.h"

KERNEL(rope, GGML_OP_ROPE, plan_rotation);
