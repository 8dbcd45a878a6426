/* LEAKY_RELU: x where it is positive, slope * x where it is negative; both parts are added, so that NaN gives 0. */
#define FUNCTION(x) (((x) > 0 ? (x) : 0) + leaky_relu_negative_slope(g) * ((x) < 0 ? (x) : 0))
#define NANOSECONDS 1
#include "elementwise.h"

KERNEL(leaky_relu, GGML_OP_LEAKY_RELU, plan);
