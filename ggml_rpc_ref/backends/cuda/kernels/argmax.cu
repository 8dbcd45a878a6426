/* ARGMAX: the place of the last largest element of each row, a block for each row.

   Upstream's search begins anew behind a NaN that a number follows; what comes before is not looked at. */
#include "kernel.cuh"

KERNEL(argmax)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.src[0].ne[0];
    EACH_ROW(row, g.src[0].ne[1]) {
        const uint8_t *x = at(&g.src[0], 0, row, 0, 0);
        int64_t last = -1, nan = -1, place = -1;
        SHARE(i, n) last = isnan(f32_at(x + 4 * i)) ? last : i;
        last = block_last(last, part);
        SHARE(i, last) nan = isnan(f32_at(x + 4 * i)) ? i : nan;
        nan = block_last(nan, part);
        float top = -INFINITY;
        SHARE(i, n) top = i > nan ? larger(top, f32_at(x + 4 * i)) : top;
        top = block_max(top, part);
        SHARE(i, n) place = i > nan && f32_at(x + 4 * i) == top ? i : place;
        place = block_last(place, part);
        if (threadIdx.x == 0)
            *(int32_t *)at(&g.dst, row, 0, 0, 0) = place < 0 ? 0 : (int32_t)place;
    }
}
