/* LOG: the natural logarithm of x; what is rounded to sixteen bits afterwards is the library's, one by one. */
#include "activation.h"
#include "rowwise.h"

#define VECTOR_FUNCTION(x) log16(x)
#define FUNCTION(x) logf(x)
#define NANOSECONDS 1
#include "elementwise.h"

KERNEL(log, GGML_OP_LOG, plan);
