/* LIGHTNING_INDEXER: for each key and token the sum over the heads of weight * max(0, q . k), plus the mask. src: q, k, weights, mask.

   A unit has sixteen keys of a stream, unpacked once for all tokens. */
#include "blocks.h"
#include "dot.h"
#include "elements.h"
#include "vector.h"

#define KEYS 16

static int64_t blocks_of_keys(const struct geometry *g) { return parts_of(g->dst.ne[0], KEYS); }

static float score(const struct node *node, const float *key, int64_t token, int64_t stream)
{
    const struct layout *q = &node->of->src[0], *weights = &node->of->src[2];
    float total = 0;
    for (int64_t head = 0; head < q->ne[1]; head++) {
        float product = dot_f32((const float *)row_at(q, node->src[0], head, token, stream), key, q->ne[0]);
        total += f32_at(weights, node->src[2], head, token, 0, stream) * (product > 0 ? product : 0);
    }
    return total;
}

static void score_keys(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *k = &g->src[1], *mask = &g->src[3];
    int64_t n = k->ne[0];
    float *unpacked = (float *)work->own;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t begin = unit % blocks_of_keys(g) * KEYS, end = min64(begin + KEYS, g->dst.ne[0]), stream = unit / blocks_of_keys(g);
        for (int64_t key = begin; key < end; key++)
            dequantise_row(k->type, row_at(k, node->src[1], 0, key, stream), unpacked + (key - begin) * n, n);
        for (int64_t token = 0; token < g->dst.ne[1]; token++)
            for (int64_t key = begin; key < end; key++) {
                float bias = from_half(*(const u16 *)element(mask, node->src[3], key, token, 0, stream % mask->ne[3]));
                *(f32 *)element(&g->dst, node->dst, key, token, 0, stream) =
                    score(node, unpacked + (key - begin) * n, token, stream) + bias;
            }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *q = &g->src[0];
    if (!can_dequantise(g->src[1].type))
        return false;
    g->own = 4 * KEYS * q->ne[0];
    add_phase(g, score_keys, blocks_of_keys(g) * q->ne[3], KEYS * (0.3 * q->ne[0] * q->ne[1] * q->ne[2] + q->ne[0]));
    return true;
}

KERNEL(lightning_indexer, GGML_OP_LIGHTNING_INDEXER, plan);
