/* MEAN: the mean of each row; the sum is rounded to float32 before it is divided. */
#define OF_SUM(sum, n) ((sum) / (float)(n))
#include "row_sums.h"

KERNEL(mean, GGML_OP_MEAN, plan);
