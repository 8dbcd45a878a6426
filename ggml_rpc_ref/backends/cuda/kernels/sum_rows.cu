/* SUM_ROWS: each row added up. */
#include "row_sums.cuh"

OF_ROW_SUM(sum_rows, sum)
