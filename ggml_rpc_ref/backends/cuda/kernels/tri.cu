/* TRI: a triangle of every matrix, zero elsewhere. */
#include "triangle.cuh"

enum { UPPER_WITH_DIAGONAL, UPPER, LOWER_WITH_DIAGONAL, LOWER };

DEVICE bool holds(int32_t type, int64_t column, int64_t row)
{
    switch (type) {
    case UPPER_WITH_DIAGONAL: return column >= row;
    case UPPER: return column > row;
    case LOWER_WITH_DIAGONAL: return column <= row;
    default: return column < row;
    }
}

KEEPING(tri, holds(tri_type(&g), p.i0, p.i1), 0)
