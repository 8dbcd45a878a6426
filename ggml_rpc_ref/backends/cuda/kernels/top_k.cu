/* TOP_K: the places of the k largest elements of each row, falling, the first two exchanged as upstream does; see ranking.cuh. */
#include "ranking.cuh"

KERNEL(top_k)
{
    int64_t k = g.dst.ne[0];
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const rank *r = ranked(&g, at_place(&g.src[0], p), true);
        uint8_t *dst = at_place(&g.dst, p);
        SHARE(i, k) *(int32_t *)(dst + 4 * i) = place_in_row(r[k > 1 && i < 2 ? 1 - i : i]);
    }
}
