/* RWKV_WKV6: a state per head that decays by key and accumulates key times value. src: k, v, r, time_first, decay, state. */
#include "recurrence.h"

static void token(const struct node *node, float *state, float *out, int64_t size, int64_t head, int64_t at)
{
    const f32 *k = stream(node, 0, at), *v = stream(node, 1, at), *r = stream(node, 2, at), *decay = stream(node, 4, at);
    const f32 *time_first = (const f32 *)node->src[3] + head * size;
    for (int64_t i = 0; i < size; i++, state += size) {
        f32x16 key = splat(k[i]), first = splat(time_first[i]), read = splat(r[i]), kept = splat(decay[i]);
        EACH_VECTOR(size)
        {
            f32x16 taken = key * load_part(v + j, left), s = load_part(state + j, left);
            store_part(out + j, fma16(read, fma16(first, taken, s), load_part(out + j, left)), left);
            store_part(state + j, fma16(s, kept, taken), left);
        }
    }
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    for (int64_t unit = first; unit < last; unit++)
        walk(node, unit, 5, (float *)work->own, token);
}

static bool plan(struct geometry *g) { return plan_recurrence(g, 5, walk_heads); }

KERNEL(rwkv_wkv6, GGML_OP_RWKV_WKV6, plan);
