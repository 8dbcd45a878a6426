/* ACC: src1 added to a region of src0. F32. */
#define REGION(parameter) acc_##parameter
#define WORD f32
#define MEET(x, y) ((x) + (y))
#include "regions.h"

KERNEL(acc, GGML_OP_ACC, plan);
