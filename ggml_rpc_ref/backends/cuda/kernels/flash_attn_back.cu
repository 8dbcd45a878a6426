/* FLASH_ATTN_BACK: the gradients of attention with respect to Q, K and V, one after the other, each padded with zeros.

   flash_attn_back_scores   a block for each query: the weights of the keys that it sees, and the gradients of their scores, go to
                            scratch memory
   flash_attn_back          a thread for each element of the gradients sums products with these
*/
#include "kernel.cuh"

enum { Q, K, V, GRADIENT };

/* Of each query, counted as Q's rows are, the weights of all keys, then the gradients of all scores. */
DEVICE float *weights_of(const struct geometry *g, int64_t query) { return (float *)g->scratch + query * 2 * g->src[K].ne[1]; }
DEVICE float *scores_of(const struct geometry *g, int64_t query) { return weights_of(g, query) + g->src[K].ne[1]; }

/* How many keys a query sees. */
DEVICE int64_t seen_by(const struct geometry *g, int64_t query)
{
    int64_t keys = g->src[K].ne[1];
    return flash_attn_back_masked(g) ? keys - g->src[Q].ne[1] + query + 1 : keys;
}

KERNEL(flash_attn_back_scores)
{
    __shared__ double part[MOST_WARPS];
    int64_t d = g.src[Q].ne[0], shared = g.src[K].ne[2];
    float scale = 1.0f / sqrtf((float)d);
    EACH_ROW(row, rows_of(&g.src[Q])) {
        struct place p = place_of_row(&g.src[Q], row);
        int64_t seen = seen_by(&g, p.i1);
        float *weight = weights_of(&g, row), *score = scores_of(&g, row), top = -INFINITY;
        SHARE(key, seen) {
            float product = 0, weight_gradient = 0;
            for (int64_t i = 0; i < d; i++) {
                product = fmaf(f32_at(at(&g.src[Q], i, p.i1, p.i2, p.i3)), f32_at(at(&g.src[K], i, key, p.i2 % shared, p.i3)), product);
                weight_gradient = fmaf(f32_at(at(&g.src[GRADIENT], i, p.i1, p.i2, p.i3)),
                                       f32_at(at(&g.src[V], key, i, p.i2 % shared, p.i3)), weight_gradient);
            }
            weight[key] = product * scale;
            score[key] = weight_gradient;
            top = larger(top, product * scale);
        }
        top = block_max(top, part);
        double sum = 0, both = 0;
        SHARE(key, seen) sum += weight[key] = expf(weight[key] - top);
        float factor = (float)(1 / block_sum(sum, part));
        SHARE(key, seen) {
            weight[key] *= factor;
            both += weight[key] * score[key];
        }
        float mean = (float)block_sum(both, part);
        SHARE(key, seen) score[key] = weight[key] * (score[key] - mean) * scale;
    }
}

/* An element of Q's gradient. */
DEVICE float of_query(const struct geometry *g, int64_t number)
{
    struct place p = place_of(&g->src[Q], number);
    const float *score = scores_of(g, number / g->src[Q].ne[0]);
    float sum = 0;
    for (int64_t key = 0; key < seen_by(g, p.i1); key++)
        sum = fmaf(score[key], f32_at(at(&g->src[K], p.i0, key, p.i2 % g->src[K].ne[2], p.i3)), sum);
    return sum;
}

/* An element of K's or V's gradient: from all queries of all heads that share it. `by`: Q or GRADIENT. */
DEVICE float of_key(const struct geometry *g, int by, bool scores, int64_t i, int64_t key, int64_t shared, int64_t batch)
{
    const struct operand *q = &g->src[Q];
    float sum = 0;
    for (int64_t head = shared; head < q->ne[2]; head += g->src[K].ne[2])
        for (int64_t query = 0; query < q->ne[1]; query++) {
            int64_t row = (batch * q->ne[2] + head) * q->ne[1] + query;
            if (key < seen_by(g, query))
                sum = fmaf((scores ? scores_of(g, row) : weights_of(g, row))[key], f32_at(at(&g->src[by], i, query, head, batch)), sum);
        }
    return sum;
}

/* Elements of a gradient, padded to 16 bytes. */
DEVICE int64_t padded(const struct operand *t) { return (elements_of(t) + 3) / 4 * 4; }

KERNEL(flash_attn_back)
{
    int64_t keys = padded(&g.src[Q]), values = keys + padded(&g.src[K]);
    EACH(i, elements_of(&g.dst)) {
        float sum = 0;
        if (i < elements_of(&g.src[Q])) {
            sum = of_query(&g, i);
        } else if (i >= keys && i < keys + elements_of(&g.src[K])) {
            struct place p = place_of(&g.src[K], i - keys);
            sum = of_key(&g, Q, true, p.i0, p.i1, p.i2, p.i3);
        } else if (i >= values && i < values + elements_of(&g.src[V])) {
            struct place p = place_of(&g.src[V], i - values);
            sum = of_key(&g, GRADIENT, false, p.i1, p.i0, p.i2, p.i3);
        }
        *(float *)at(&g.dst, i, 0, 0, 0) = sum;
    }
}
