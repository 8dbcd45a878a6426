/* SUM_ROWS: the sum of each row. */
#define OF_SUM(sum, n) (sum)
#include "row_sums.h"

KERNEL(sum_rows, GGML_OP_SUM_ROWS, plan);
