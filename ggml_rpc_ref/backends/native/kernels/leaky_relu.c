/* LEAKY_RELU: x where it is positive, slope * x where it is negative; both parts are added, so that NaN gives 0. */
#include "rowwise.h"

#define VECTOR_FUNCTION(x) (choose(x > splat(0), x, splat(0)) + leaky_relu_negative_slope(g) * choose(x < splat(0), x, splat(0)))
#define NANOSECONDS 0.5
#include "elementwise.h"

KERNEL(leaky_relu, GGML_OP_LEAKY_RELU, plan);
