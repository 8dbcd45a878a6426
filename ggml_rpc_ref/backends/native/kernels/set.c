/* SET: src1 written over a region of src0. F32 or I32, as the same bits. */
#define REGION(parameter) set_##parameter
#define WORD i32
#define MEET(x, y) ((void)(x), (y))
#include "regions.h"

KERNEL(set, GGML_OP_SET, plan);
