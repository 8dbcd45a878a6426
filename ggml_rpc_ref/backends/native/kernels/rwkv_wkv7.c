/* RWKV_WKV7: a state per head that decays by key, is corrected along b and accumulates key times value. src: r, w, k, v, a, b, state. */
#include "recurrence.h"

static void token(const struct node *node, double *state, double *out, int64_t size, int64_t head, int64_t at)
{
    (void)head;
    const f32 *r = stream(node, 0, at), *w = stream(node, 1, at), *k = stream(node, 2, at), *v = stream(node, 3, at);
    const f32 *a = stream(node, 4, at), *b = stream(node, 5, at);
    for (int64_t i = 0; i < size; i++, state += size) {
        double correction = 0, read = 0, value = v[i];
        for (int64_t j = 0; j < size; j++)
            correction += (double)a[j] * state[j];
        for (int64_t j = 0; j < size; j++) {
            state[j] = state[j] * w[j] + value * k[j] + correction * b[j];
            read += (double)r[j] * state[j];
        }
        out[i] = read;
    }
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    for (int64_t unit = first; unit < last; unit++)
        walk(node, unit, 6, (double *)work->own, token);
}

static bool plan(struct geometry *g) { return plan_recurrence(g, 6, walk_heads); }

KERNEL(rwkv_wkv7, GGML_OP_RWKV_WKV7, plan);
