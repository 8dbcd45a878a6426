/* FLASH_ATTN_BACK: the gradients of attention with respect to Q, K and V (transposed), packed into one row. src: q, k, v, gradient.

   A unit has all queries of the heads that share one of K, so that each gradient is added up by one thread. */
#include "dot.h"
#include "exponentials.h"
#include "rowwise.h"
#include "sums.h"

/* Where a source's gradient begins in the result, each padded to 16 bytes. */
static int64_t begin_of(const struct geometry *g, int slot)
{
    int64_t begin = 0;
    for (int before = 0; before < slot; before++)
        begin += parts_of(4 * elements(&g->src[before]), 16) * 4;
    return begin;
}

/* One query: its weights and the gradient of its scores go to `weight` and `score`; n keys are seen. */
static void attend(const struct node *node, const float *q, const uint8_t *gradient, int64_t step, struct place shared, int64_t n,
                   float *weight, float *score)
{
    const struct layout *k = &node->of->src[1], *v = &node->of->src[2];
    float scale = 1 / sqrtf((float)k->ne[0]);
    for (int64_t i = 0; i < n; i++)
        weight[i] = dot_f32(q, (const float *)row_at(k, node->src[1], i, shared.i2, shared.i3), k->ne[0]) * scale;
    float top = largest_of(weight, n), factor = (float)(1 / sum_of_exponentials(weight, n, top));
    MAP1(weight, weight, n, exp16(x - top) * factor);
    memset(score, 0, (size_t)(4 * n));
    for (int64_t c = 0; c < v->ne[1]; c++) {
        f32x16 factor = splat(*(const f32 *)(gradient + c * step));
        MAP2(score, score, (const float *)row_at(v, node->src[2], c, shared.i2, shared.i3), n, fma16(y, factor, x));
    }
    float mean = (float)sum_of_products(weight, score, n);
    MAP2(score, weight, score, n, x * (y - mean) * scale);
}

/* Add what one query gives to the gradients of Q, K and V. */
static void add_query(const struct node *node, int64_t query, int64_t head, struct place shared, float *weight, float *score)
{
    const struct geometry *g = node->of;
    const struct layout *q = &g->src[0], *k = &g->src[1], *v = &g->src[2], *out = &g->src[3];
    int64_t seen = flash_attn_back_masked(g) ? k->ne[1] - q->ne[1] + query + 1 : k->ne[1], d = q->ne[0];
    int64_t matrix = shared.i3 * k->ne[2] + shared.i2;
    const float *row = (const float *)row_at(q, node->src[0], query, head, shared.i3);
    const uint8_t *gradient = row_at(out, node->src[3], query, head, shared.i3);
    attend(node, row, gradient, out->nb[0], shared, seen, weight, score);
    float *to_q = (float *)node->dst + begin_of(g, 0) + ((shared.i3 * q->ne[2] + head) * q->ne[1] + query) * d;
    float *to_k = (float *)node->dst + begin_of(g, 1) + matrix * k->ne[1] * d;
    float *to_v = (float *)node->dst + begin_of(g, 2) + matrix * k->ne[1] * d;
    memset(to_q, 0, (size_t)(4 * d));
    for (int64_t i = 0; i < seen; i++, to_k += d) {
        f32x16 factor = splat(score[i]);
        MAP2(to_q, to_q, (const float *)row_at(k, node->src[1], i, shared.i2, shared.i3), d, fma16(y, factor, x));
        MAP2(to_k, to_k, row, d, fma16(y, factor, x));
    }
    for (int64_t c = 0; c < d; c++, to_v += v->ne[0]) {
        f32x16 factor = splat(*(const f32 *)(gradient + c * out->nb[0]));
        MAP2(to_v, to_v, weight, seen, fma16(y, factor, x));
    }
}

static void add_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *q = &g->src[0], *k = &g->src[1];
    float *weight = (float *)work->own, *score = weight + k->ne[1];
    for (int64_t unit = first; unit < last; unit++) {
        struct place shared = {0, unit % k->ne[2], unit / k->ne[2]};
        for (int64_t head = shared.i2; head < q->ne[2]; head += k->ne[2])
            for (int64_t query = 0; query < q->ne[1]; query++)
                add_query(node, query, head, shared, weight, score);
    }
}

static void clear(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last, (void)work;
    memset(node->dst, 0, (size_t)(4 * node->of->dst.ne[0]));
}

static bool plan(struct geometry *g)
{
    const struct layout *q = &g->src[0], *k = &g->src[1];
    g->own = 8 * k->ne[1];
    add_phase(g, clear, 1, g->dst.ne[0] * 0.3);
    add_phase(g, add_heads, k->ne[2] * k->ne[3], 6.0 * q->ne[0] * q->ne[1] * k->ne[1] * (q->ne[2] / k->ne[2]));
    return true;
}

KERNEL(flash_attn_back, GGML_OP_FLASH_ATTN_BACK, plan);
