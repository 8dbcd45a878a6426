/* FLASH_ATTN_EXT: softmax(scale * Q K^T + mask) V for each head, without ever having all scores at once.

   With the largest score so far, the sum of exp(score - largest) and the weighted sum of values, each part of the keys is added by
   scaling what was there. A key that the mask hides counts for nothing, whatever it holds.

   flash_attn_ext_naive   a block for each query, a thread for each key of a part, then one for each element of the result
*/
#include "attention.cuh"

/* Dynamic shared memory: the weighted sum, dv floats, and a score for each thread. */
KERNEL(flash_attn_ext_naive)
{
    __shared__ double part[MOST_WARPS];
    DYNAMIC_SHARED(memory);
    int64_t dk = g.src[0].ne[0], dv = g.src[2].ne[0], keys = g.src[1].ne[1];
    float *sum = (float *)memory, *weight = sum + dv;
    EACH_ROW(row, rows_of(&g.dst)) {
        struct query q = query_of(&g, row);
        float top = -INFINITY, total = 0;
        bool seen = false;
        SHARE(i, dv) sum[i] = 0;
        for (int64_t first = 0; first < keys; first += blockDim.x) {
            int64_t key = first + threadIdx.x, count = min64(blockDim.x, keys - first);
            float bias = key < keys ? bias_of(&q, key) : -INFINITY, score = -INFINITY;
            bool hidden = bias == -INFINITY;
            if (!hidden) {
                const uint8_t *k = q.k + key * g.src[1].nb[1];
                float product = 0;
                for (int64_t i = 0; i < dk; i++)
                    product = fmaf(f32_at(q.q + 4 * i), element(g.src[1].type, k, i), product);
                score = score_of(&g, product, bias);
            }
            seen |= block_max(hidden ? 0 : 1, part) > 0;
            float before = top;
            top = larger(top, block_max(score, part));
            float factor = weight_of(before, top);
            weight[threadIdx.x] = hidden ? 0 : weight_of(score, top);
            total = total * factor + (float)block_sum(weight[threadIdx.x], part);
            SHARE(i, dv) {
                float x = sum[i] * factor;
                for (int64_t n = 0; n < count; n++)
                    if (weight[n] != 0) /* a weight of 0 hides NaN and infinities of V */
                        x = fmaf(weight[n], element(g.src[2].type, q.v + (first + n) * g.src[2].nb[1], i), x);
                sum[i] = x;
            }
            /* the next part's weights are written behind the barriers of block_max, when all have used these */
        }
        float factor = last_factor(&g, &q, top, total, seen);
        SHARE(i, dv) *(float *)(q.dst + 4 * i) = sum[i] * factor;
    }
}
