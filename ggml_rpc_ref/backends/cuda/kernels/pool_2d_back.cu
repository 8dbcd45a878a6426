/* POOL_2D_BACK: the gradient of POOL_2D's source from the gradient of its result.

   pool_2d_back_find   a thread for each window finds the place of its largest element; of a mean there is nothing to find
   pool_2d_back        a thread for each element adds up the gradients of the windows over it, in their order
*/
#include "pooling.cuh"

DEVICE struct windows across(const struct geometry *g)
{
    struct windows w = {g->dst.ne[0], pool_2d_back_k0(g), pool_2d_back_s0(g), pool_2d_back_p0(g)};
    return w;
}
DEVICE struct windows down(const struct geometry *g)
{
    struct windows w = {g->dst.ne[1], pool_2d_back_k1(g), pool_2d_back_s1(g), pool_2d_back_p1(g)};
    return w;
}

/* Places are counted in a plane; -1: there is none. */
KERNEL(pool_2d_back_find)
{
    const struct operand *from = &g.src[1];
    struct windows width = across(&g), height = down(&g);
    EACH(i, elements_of(&g.src[0])) {
        struct place p = place_of(&g.src[0], i);
        float largest = LOWEST;
        int64_t place = -1;
        for (int64_t y = begin_of(&height, p.i1); y < end_of(&height, p.i1); y++)
            for (int64_t x = begin_of(&width, p.i0); x < end_of(&width, p.i0); x++) {
                float value = f32_at(at(from, x, y, p.i2, p.i3));
                if (value <= largest) /* a NaN is not: it takes the place, and any number takes it from there */
                    continue;
                largest = value;
                place = y * width.size + x;
            }
        ((int64_t *)g.scratch)[i] = place;
    }
}

KERNEL(pool_2d_back)
{
    const struct operand *gradient = &g.src[0];
    struct windows width = across(&g), height = down(&g);
    bool mean = pool_2d_back_op(&g) == POOL_MEAN;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t plane = (p.i3 * g.dst.ne[2] + p.i2) * gradient->ne[0] * gradient->ne[1];
        float sum = 0;
        for (int64_t row = first_over(&height, p.i1); row <= last_over(&height, p.i1, gradient->ne[1]); row++)
            for (int64_t column = first_over(&width, p.i0); column <= last_over(&width, p.i0, gradient->ne[0]); column++) {
                float received = f32_at(at(gradient, column, row, p.i2, p.i3));
                if (mean)
                    sum += received / (float)(width.kernel * height.kernel);
                else if (((const int64_t *)g.scratch)[plane + row * gradient->ne[0] + column] == p.i1 * width.size + p.i0)
                    sum += received;
            }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
