/* COUNT_EQUAL: the number of places at which two tensors are equal; see parts.cuh. A double counts up to 2^53. */
#include "parts.cuh"

KERNEL(count_equal_parts)
{
    double count = 0;
    EACH(i, elements_of(&g.src[0])) {
        struct place p = place_of(&g.src[0], i);
        count += i32_at(at_place(&g.src[0], p)) == i32_at(at_place(&g.src[1], p));
    }
    leave_part(&g, count);
}

KERNEL(count_equal)
{
    if (*g.outcome)
        return;
    double count = sum_of_parts(&g);
    if (threadIdx.x == 0)
        *(int64_t *)g.dst.data = (int64_t)count;
}
