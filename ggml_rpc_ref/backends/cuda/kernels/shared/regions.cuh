/* ACC and SET: a region of the result meets src1, element by element.

   A thread for each element of the result, which asks whether the region has it: so nothing is written before it is read, even
   where all three tensors are the same memory. */
#pragma once
#include "kernel.cuh"

/* Where the region begins, and bytes between its rows, matrices and stacks of matrices, which never overlap. */
struct region {
    int64_t offset, nb[4];
};

/* Finds the element of src1 that meets the byte of dst; whether there is one. more: the dimensions, longest strides first. */
DEVICE bool meets(const struct geometry *g, const struct region *r, int64_t byte, struct place *p)
{
    int64_t rest = byte - r->offset, index[4] = {0, 0, 0, 0};
    for (int k = 0; k < 4; k++) {
        int dim = (int)g->more[k];
        int64_t n = g->src[1].ne[dim];
        if (n == 1) /* along a dimension of length 1 a stride may be anything */
            continue;
        if (n == 0 || rest < 0 || rest / r->nb[dim] >= n)
            return false;
        index[dim] = rest / r->nb[dim];
        rest -= index[dim] * r->nb[dim];
    }
    *p = {index[0], index[1], index[2], index[3]};
    return rest == 0;
}
