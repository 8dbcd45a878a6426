/* GATED_LINEAR_ATTN: a state per head that decays by a gate for each key and accumulates key times value. src: k, v, q, g, state. */
#include "recurrence.h"

static void token(const struct node *node, float *state, float *out, int64_t size, int64_t head, int64_t at)
{
    (void)head;
    const f32 *k = stream(node, 0, at), *v = stream(node, 1, at), *q = stream(node, 2, at), *gate = stream(node, 3, at);
    float scale = gated_linear_attn_scale(node->of);
    for (int64_t i = 0; i < size; i++, state += size) {
        f32x16 key = splat(k[i]), kept = splat(gate[i]), read = splat(q[i] * scale);
        EACH_VECTOR(size)
        {
            f32x16 s = fma16(load_part(state + j, left), kept, key * load_part(v + j, left));
            store_part(state + j, s, left);
            store_part(out + j, fma16(read, s, load_part(out + j, left)), left);
        }
    }
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    for (int64_t unit = first; unit < last; unit++)
        walk(node, unit, 4, (float *)work->own, token);
}

static bool plan(struct geometry *g) { return plan_recurrence(g, 4, walk_heads); }

KERNEL(gated_linear_attn, GGML_OP_GATED_LINEAR_ATTN, plan);
