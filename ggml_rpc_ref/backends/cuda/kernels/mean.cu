/* MEAN: the mean of each row. */
#include "row_sums.cuh"

OF_ROW_SUM(mean, sum / (float)g.src[0].ne[0])
