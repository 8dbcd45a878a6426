/* POOL_1D: the largest or the mean of the elements under a window that slides over each row; a thread for each window.

   The mean is of the elements that there are, 0 where there are none. */
#include "pooling.cuh"

KERNEL(pool_1d)
{
    const struct operand *x = &g.src[0];
    struct windows along = {x->ne[0], pool_1d_k0(&g), pool_1d_s0(&g), pool_1d_p0(&g)};
    int kind = pool_1d_op(&g);
    bool passes_nan = has_change(&g, CHANGE_POOL_1D_NAN);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t begin = begin_of(&along, p.i0), end = end_of(&along, p.i0);
        float result = kind == POOL_MAX ? LOWEST : 0;
        for (int64_t k = begin; k < end; k++)
            result = pooled(kind, passes_nan, result, load(x->type, at(x, k, p.i1, p.i2, p.i3)));
        *(float *)at_place(&g.dst, p) = kind == POOL_MEAN ? result / (float)max64(1, end - begin) : result;
    }
}
