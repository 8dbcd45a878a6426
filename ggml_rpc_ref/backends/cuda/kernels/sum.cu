/* SUM: all elements added up, in double; see parts.cuh. */
#include "parts.cuh"

KERNEL(sum_parts)
{
    double sum = 0;
    EACH(i, elements_of(&g.src[0])) sum += load(g.src[0].type, at_place(&g.src[0], place_of(&g.src[0], i)));
    leave_part(&g, sum);
}

KERNEL(sum)
{
    if (*g.outcome)
        return;
    double sum = sum_of_parts(&g);
    if (threadIdx.x == 0)
        store(g.dst.type, g.dst.data, (float)sum);
}
