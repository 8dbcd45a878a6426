/* What the kernels of FLASH_ATTN_EXT share: where a query's operands lie, the score of a key, and how a sum becomes a result. */
#pragma once
#include "blocks.cuh"

/* One query of one head, and the matrices that it meets. */
struct query {
    const uint8_t *q, *k, *v, *mask; /* mask: NULL where there is none */
    uint8_t *dst;
    float slope;
    int64_t head;
};

/* Queries are counted as dst's rows are: heads first, then queries, then batch entries. */
DEVICE struct query query_of(const struct geometry *g, int64_t row)
{
    const struct operand *q = &g->src[0], *k = &g->src[1], *v = &g->src[2], *mask = &g->src[3];
    int64_t h = row % q->ne[2], j = row / q->ne[2] % q->ne[1], b = row / q->ne[2] / q->ne[1];
    struct query found;
    found.q = at(q, 0, j, h, b);
    found.k = at(k, 0, 0, h / (q->ne[2] / k->ne[2]), b / (q->ne[3] / k->ne[3]));
    found.v = at(v, 0, 0, h / (q->ne[2] / v->ne[2]), b / (q->ne[3] / v->ne[3]));
    found.mask = present(mask) ? at(mask, 0, j, h % mask->ne[2], b % mask->ne[3]) : NULL;
    found.dst = at(&g->dst, 0, h, j, b);
    found.slope = slope_of(h, q->ne[2], flash_attn_ext_max_bias(g));
    found.head = h;
    return found;
}

/* Kernels that divide the keys among blocks count rows of dst together that meet the same keys and values: more[1] successive heads
   of a batch entry. Number `row` of group `group`, as dst's rows are counted. */
DEVICE int64_t row_of_group(const struct geometry *g, int64_t group, int64_t row)
{
    int64_t heads = g->src[0].ne[2], queries = g->src[0].ne[1], together = g->more[1], of_entry = heads / together;
    return (group / of_entry * queries + row / together) * heads + group % of_entry * together + row % together;
}

/* What a block leaves of its part of the keys for each of its rows, in scratch memory; the weighted sum of values is behind it. */
struct partial {
    float top, total;
    int32_t seen, strange; /* whether any key is not hidden; whether the row must be computed by itself */
};

DEVICE struct partial *partial_of(const struct geometry *g, int64_t part, int64_t row)
{
    int64_t size = sizeof(struct partial) + 4 * ((g->src[2].ne[0] + 7) / 8 * 8);
    return (struct partial *)(g->scratch + (part * rows_of(&g->dst) + row) * size);
}

DEVICE float *sum_of(struct partial *p) { return (float *)(p + 1); }

/* What was summed so far, once there is a larger score: a factor of 0 hides infinities of V too. */
DEVICE float scaled(float sum, float factor) { return factor != 0 ? sum * factor : 0; }

/* What is added to the score of a key; -inf: the key is hidden. */
DEVICE float bias_of(const struct query *q, int64_t key) { return q->mask ? q->slope * f16_at(q->mask + 2 * key) : 0; }

/* The score of a key that is not hidden, from its product with the query. */
DEVICE float score_of(const struct geometry *g, float product, float bias)
{
    float cap = flash_attn_ext_logit_softcap(g), score = product * flash_attn_ext_scale(g);
    if (cap != 0)
        score = cap * tanhf(score / cap);
    return score + bias;
}

/* exp(x - top), where nothing so far is -inf. */
DEVICE float weight_of(float x, float top) { return top == -INFINITY ? (x == x ? 0 : x) : expf(x - top); }

/* What the weighted sum is multiplied with to become the result. */
DEVICE float last_factor(const struct geometry *g, const struct query *q, float top, float total, bool seen)
{
    if (seen && top == -INFINITY) /* scores of -inf throughout have no softmax, even with a sink */
        return NAN;
    float factor = 1;
    if (present(&g->src[4])) {
        float sink = f32_at(g->src[4].data + 4 * q->head), higher = larger(top, sink);
        factor = weight_of(top, higher);
        total = total * factor + weight_of(sink, higher);
    }
    float of_none = has_change(g, CHANGE_FLASH_ATTN_EXT_HIDDEN) ? NAN : 0; /* before that change, 0 / 0 */
    return total == 0 ? of_none : factor / total;
}
