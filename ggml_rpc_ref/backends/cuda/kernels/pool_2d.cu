/* POOL_2D: the largest or the mean under a window that slides over each plane, a thread for each window.

   The mean is of the whole window, padding and all. */
#include "pooling.cuh"

KERNEL(pool_2d)
{
    const struct operand *from = &g.src[0];
    struct windows width = {from->ne[0], pool_2d_k0(&g), pool_2d_s0(&g), pool_2d_p0(&g)};
    struct windows height = {from->ne[1], pool_2d_k1(&g), pool_2d_s1(&g), pool_2d_p1(&g)};
    int kind = pool_2d_op(&g);
    bool passes_nan = has_change(&g, CHANGE_POOL_2D_NAN);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float result = kind == POOL_MAX ? LOWEST : 0;
        for (int64_t y = begin_of(&height, p.i1); y < end_of(&height, p.i1); y++)
            for (int64_t x = begin_of(&width, p.i0); x < end_of(&width, p.i0); x++)
                result = pooled(kind, passes_nan, result, load(from->type, at(from, x, y, p.i2, p.i3)));
        *(float *)at_place(&g.dst, p) = kind == POOL_MEAN ? result / (float)(width.kernel * height.kernel) : result;
    }
}
