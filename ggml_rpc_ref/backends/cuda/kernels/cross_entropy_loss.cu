/* CROSS_ENTROPY_LOSS: the cross entropy of logits and a distribution, averaged over all rows: a block for each row, then parts.cuh. */
#include "exponentials.cuh"
#include "parts.cuh"

KERNEL(cross_entropy_loss_parts)
{
    __shared__ double part[MOST_WARPS];
    int64_t n = g.src[0].ne[0];
    double sum = 0;
    EACH_ROW(row, rows_of(&g.src[0])) {
        struct place p = place_of_row(&g.src[0], row);
        const uint8_t *x = at_place(&g.src[0], p), *wanted = at_place(&g.src[1], p);
        struct exponentials e = exponentials_of(x, n, part);
        float logarithm = (float)log(e.sum);
        SHARE(i, n) sum += (f32_at(x + 4 * i) - e.top - logarithm) * f32_at(wanted + 4 * i);
    }
    leave_part(&g, sum);
}

KERNEL(cross_entropy_loss)
{
    if (*g.outcome)
        return;
    double sum = sum_of_parts(&g);
    if (threadIdx.x == 0)
        *(float *)g.dst.data = (float)sum * (-1.0f / (float)rows_of(&g.src[0]));
}
