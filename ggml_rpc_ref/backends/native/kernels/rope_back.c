/* ROPE_BACK: pairs of elements turned back by the angles of ROPE. */
#include "rotation.h"

KERNEL(rope_back, GGML_OP_ROPE_BACK, plan_rotation);
