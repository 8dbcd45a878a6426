/* ARGSORT: the places of each row's elements, by rising (0) or falling (1) value; see ranking.cuh. */
#include "ranking.cuh"

KERNEL(argsort)
{
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const rank *r = ranked(&g, at_place(&g.src[0], p), argsort_order(&g) == 1);
        uint8_t *dst = at_place(&g.dst, p);
        SHARE(i, g.dst.ne[0]) *(int32_t *)(dst + 4 * i) = place_in_row(r[i]);
    }
}
