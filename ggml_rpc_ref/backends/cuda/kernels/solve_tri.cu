/* SOLVE_TRI: A X = B for a lower triangular A, by forward substitution; a thread for each column of X, its sums in double. */
#include "kernel.cuh"

KERNEL(solve_tri)
{
    const struct operand *a = &g.src[0];
    int64_t columns[4] = {g.dst.ne[0], g.dst.ne[2], g.dst.ne[3], 1};
    EACH(i, columns[0] * columns[1] * columns[2]) {
        struct place p = place_in(columns, i);
        for (int64_t row = 0; row < g.dst.ne[1]; row++) {
            double known = 0;
            for (int64_t t = 0; t < row; t++)
                known += (double)f32_at(at(a, t, row, p.i1, p.i2)) * f32_at(at(&g.dst, p.i0, t, p.i1, p.i2));
            float rest = f32_at(at(&g.src[1], p.i0, row, p.i1, p.i2)) - (float)known;
            *(float *)at(&g.dst, p.i0, row, p.i1, p.i2) = rest / f32_at(at(a, row, row, p.i1, p.i2));
        }
    }
}
