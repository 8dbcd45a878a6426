/* COL2IM_1D: columns added up to a signal, in their order; a thread for each element of it. */
#include "kernel.cuh"

KERNEL(col2im_1d)
{
    const struct operand *columns = &g.src[0];
    int64_t stride = col2im_1d_s0(&g), taps = columns->ne[0] / col2im_1d_oc(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t t = p.i0 + col2im_1d_p0(&g), first = t < taps ? 0 : (t - taps) / stride + 1;
        float sum = 0;
        for (int64_t column = first; column < columns->ne[1] && column * stride <= t; column++)
            sum += load(columns->type, at(columns, p.i1 * taps + t - column * stride, column, 0, 0));
        store(g.dst.type, at_place(&g.dst, p), sum);
    }
}
