/* ARGSORT: the places of each row's elements, by rising (0) or falling (1) value.

   argsort            a block for each row; see ranking.cuh
   argsort_exchange   a thread for each row exchanges each place with every smaller element that follows, as some versions leave equals
*/
#include "ranking.cuh"

KERNEL(argsort_exchange)
{
    float sign = argsort_order(&g) == 1 ? -1 : 1;
    EACH(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *x = at_place(&g.src[0], p);
        int32_t *dst = (int32_t *)at_place(&g.dst, p);
        for (int64_t i = 0; i < g.dst.ne[0]; i++)
            dst[i] = (int32_t)i;
        for (int64_t i = 0; i < g.dst.ne[0]; i++) {
            float least = sign * f32_at(x + 4 * dst[i]); /* nothing is smaller than NaN: a place that holds one keeps it */
            for (int64_t k = i + 1; k < g.dst.ne[0]; k++) {
                float value = sign * f32_at(x + 4 * dst[k]);
                if (value < least) {
                    int32_t moved = dst[i];
                    dst[i] = dst[k];
                    dst[k] = moved;
                    least = value;
                }
            }
        }
    }
}

KERNEL(argsort)
{
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const rank *r = ranked(&g, at_place(&g.src[0], p), argsort_order(&g) == 1);
        uint8_t *dst = at_place(&g.dst, p);
        SHARE(i, g.dst.ne[0]) *(int32_t *)(dst + 4 * i) = place_in_row(r[i]);
    }
}
