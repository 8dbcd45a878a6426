/* TRI: a triangle of every matrix, zero elsewhere. type: 0 upper with diagonal, 1 upper, 2 lower with diagonal, 3 lower. */
#define FIRST(g, row) (tri_type(g) == 0 ? (row) : tri_type(g) == 1 ? (row) + 1 : 0)
#define END(g, row) (tri_type(g) == 2 ? (row) + 1 : tri_type(g) == 3 ? (row) : INT64_MAX)
#define VALUE 0
#include "triangle.h"

KERNEL(tri, GGML_OP_TRI, plan);
