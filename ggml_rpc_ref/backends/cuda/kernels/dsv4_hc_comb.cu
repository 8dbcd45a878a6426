/* DSV4_HC_COMB: a 4 by 4 matrix for each token, made nearly doubly stochastic; a thread for each token, in double. */
#include "kernel.cuh"

enum { STREAMS = 4, FIRST = 2 * STREAMS };

/* Divide by the sums over rows or columns, and eps. */
DEVICE void divide(double (*a)[STREAMS], bool columns, double eps)
{
    for (int i = 0; i < STREAMS; i++) {
        double sum = 0;
        for (int k = 0; k < STREAMS; k++)
            sum += columns ? a[k][i] : a[i][k];
        for (int k = 0; k < STREAMS; k++)
            (columns ? a[k][i] : a[i][k]) /= eps + sum;
    }
}

KERNEL(dsv4_hc_comb)
{
    double scale = f32_at(at(&g.src[1], 2, 0, 0, 0)), eps = dsv4_hc_comb_eps(&g);
    EACH(token, g.dst.ne[2]) {
        double a[STREAMS][STREAMS]; /* the stream that is read, and the one that is written */
        for (int i = 0; i < STREAMS; i++) {
            double top = -INFINITY;
            for (int k = 0; k < STREAMS; k++) {
                int64_t place = FIRST + STREAMS * i + k;
                /* rounded to float32, as the sum is there: that is what the exponential sees */
                a[i][k] = (float)(f32_at(at(&g.src[0], place, token, 0, 0)) * scale + f32_at(at(&g.src[2], place, 0, 0, 0)));
                top = a[i][k] > top ? a[i][k] : top;
            }
            for (int k = 0; k < STREAMS; k++)
                a[i][k] = exp(a[i][k] - top);
        }
        divide(a, false, 0);
        for (int i = 0; i < STREAMS * STREAMS; i++)
            a[i / STREAMS][i % STREAMS] += eps;
        divide(a, true, eps);
        for (int round = 1; round < dsv4_hc_comb_n_iter(&g); round++) {
            divide(a, false, eps);
            divide(a, true, eps);
        }
        for (int i = 0; i < STREAMS; i++)
            for (int k = 0; k < STREAMS; k++)
                *(float *)at(&g.dst, k, i, token, 0) = (float)a[i][k];
    }
}
