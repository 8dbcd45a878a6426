/* GROUP_NORM: groups of channels shifted to mean 0 and scaled to variance 1, a block for each group.

   A group is so many neighbours along ne[2], the last one perhaps fewer. more[0]: channels of a group; more[1]: groups. */
#include "kernel.cuh"

KERNEL(group_norm)
{
    __shared__ double part[MOST_WARPS];
    const struct operand *x = &g.src[0];
    EACH_ROW(number, g.more[1] * g.dst.ne[3]) {
        int64_t first = number % g.more[1] * g.more[0], i3 = number / g.more[1];
        int64_t ne[4] = {x->ne[0], x->ne[1], min64(g.more[0], x->ne[2] - first), 1}, n = ne[0] * ne[1] * ne[2];
        double sum = 0, squares = 0;
        SHARE(i, n) {
            struct place p = place_in(ne, i);
            sum += f32_at(at(x, p.i0, p.i1, first + p.i2, i3));
        }
        float mean = (float)(block_sum(sum, part) / n);
        SHARE(i, n) {
            struct place p = place_in(ne, i);
            float y = f32_at(at(x, p.i0, p.i1, first + p.i2, i3)) - mean;
            squares += y * y;
        }
        float variance = (float)(block_sum(squares, part) / n);
        float scale = 1.0f / sqrtf(variance + group_norm_eps(&g));
        SHARE(i, n) {
            struct place p = place_in(ne, i);
            *(float *)at(&g.dst, p.i0, p.i1, first + p.i2, i3) = (f32_at(at(x, p.i0, p.i1, first + p.i2, i3)) - mean) * scale;
        }
    }
}
