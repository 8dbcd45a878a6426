/* FLASH_ATTN_BACK: the gradients of attention with respect to Q, K and V (transposed), packed into one row. src: q, k, v, gradient.

   A unit has all queries of the heads that share one of K, so that each gradient is added up by one thread. */
#include "dot.h"
#include "exponentials.h"
#include "rowwise.h"
#include "sums.h"

#define EACH_OF_4 _Pragma("GCC unroll 4") for (int v = 0; v < 4; v++)

/* Where a source's gradient begins in the result, each padded to 16 bytes. */
static int64_t begin_of(const struct geometry *g, int slot)
{
    int64_t begin = 0;
    for (int before = 0; before < slot; before++)
        begin += parts_of(4 * elements(&g->src[before]), 16) * 4;
    return begin;
}

/* sum += the sum over i of factor[i] * row[i]; rows lie `row_step` bytes apart, factors `factor_step`. */
static void add_rows(float *sum, const uint8_t *row, int64_t row_step, const uint8_t *factor, int64_t factor_step, int64_t n,
                     int64_t length)
{
    int64_t j = 0;
    for (; j + 4 * LANES <= length; j += 4 * LANES) {
        f32x16 s[4];
        EACH_OF_4 s[v] = load16(sum + j + v * LANES);
        for (int64_t i = 0; i < n; i++) {
            f32x16 times = splat(*(const f32 *)(factor + i * factor_step));
            const uint8_t *x = row + i * row_step + 4 * j;
            EACH_OF_4 s[v] = fma16(load16(x + 4 * v * LANES), times, s[v]);
        }
        EACH_OF_4 store16(sum + j + v * LANES, s[v]);
    }
    for (int64_t left = length - j; left > 0; j += LANES, left -= LANES) {
        f32x16 s = load_part(sum + j, left);
        for (int64_t i = 0; i < n; i++)
            s = fma16(load_part(row + i * row_step + 4 * j, left), splat(*(const f32 *)(factor + i * factor_step)), s);
        store_part(sum + j, s, left);
    }
}

/* to[i] += factor[i] * row, for n rows that lie `stride` floats apart. */
static void add_to_rows(float *to, int64_t stride, const float *row, const uint8_t *factor, int64_t factor_step, int64_t n, int64_t length)
{
    int64_t j = 0;
    for (; j + 4 * LANES <= length; j += 4 * LANES) {
        f32x16 x[4];
        EACH_OF_4 x[v] = load16(row + j + v * LANES);
        for (int64_t i = 0; i < n; i++) {
            f32x16 times = splat(*(const f32 *)(factor + i * factor_step));
            float *at = to + i * stride + j;
            EACH_OF_4 store16(at + v * LANES, fma16(x[v], times, load16(at + v * LANES)));
        }
    }
    for (int64_t left = length - j; left > 0; j += LANES, left -= LANES) {
        f32x16 x = load_part(row + j, left);
        for (int64_t i = 0; i < n; i++) {
            float *at = to + i * stride + j;
            store_part(at, fma16(x, splat(*(const f32 *)(factor + i * factor_step)), load_part(at, left)), left);
        }
    }
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
    add_rows(score, row_at(v, node->src[2], 0, shared.i2, shared.i3), v->nb[1], gradient, step, v->ne[1], n);
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
    add_rows(to_q, row_at(k, node->src[1], 0, shared.i2, shared.i3), k->nb[1], (const uint8_t *)score, 4, seen, d);
    add_to_rows(to_k, d, row, (const uint8_t *)score, 4, seen, d);
    add_to_rows(to_v, v->ne[0], weight, gradient, out->nb[0], d, seen);
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
