/* CONCAT: two tensors joined along a dimension, element by element or block by block. */
#include "kernel.cuh"

KERNEL(concat)
{
    int dim = concat_dim(&g), block = type_block[g.dst.type];
    int64_t ne[4] = {g.dst.ne[0] / block, g.dst.ne[1], g.dst.ne[2], g.dst.ne[3]}, seam = g.src[0].ne[dim] / (dim ? 1 : block);
    EACH(i, elements_of(&g.dst) / block) {
        struct place p = place_in(ne, i), q = p;
        int64_t *along = dim == 0 ? &q.i0 : dim == 1 ? &q.i1 : dim == 2 ? &q.i2 : &q.i3;
        bool first = *along < seam;
        *along -= first ? 0 : seam;
        move(at_place(&g.dst, p), at_place(&g.src[first ? 0 : 1], q), type_size[g.dst.type]);
    }
}
