/* RWKV_WKV7: a state per head that decays by key, is corrected along b and accumulates key times value. src: r, w, k, v, a, b, state. */
#include "recurrence.h"

/* The inputs of a token. */
struct inputs {
    const f32 *r, *w, *k, *v, *a, *b;
};

/* Some rows of the state, from row i on, which share what is loaded. */
static inline __attribute__((always_inline)) void rows_of_state(const struct inputs *in, float *state, float *out, int64_t size, int64_t i,
                                                                const int count)
{
    f32x16 correction[2] = {{0}}, read[2] = {{0}};
    EACH_VECTOR(size)
    for (int n = 0; n < count; n++)
        correction[n] = fma16(load_part(in->a + j, left), load_part(state + n * size + j, left), correction[n]);
    for (int n = 0; n < count; n++)
        correction[n] = splat(sum16(correction[n]));
    EACH_VECTOR(size)
    {
        f32x16 w = load_part(in->w + j, left), k = load_part(in->k + j, left), b = load_part(in->b + j, left);
        f32x16 r = load_part(in->r + j, left);
        for (int n = 0; n < count; n++) {
            f32x16 taken = fma16(splat(in->v[i + n]), k, correction[n] * b);
            f32x16 s = fma16(load_part(state + n * size + j, left), w, taken);
            store_part(state + n * size + j, s, left);
            read[n] = fma16(r, s, read[n]);
        }
    }
    for (int n = 0; n < count; n++)
        out[i + n] = sum16(read[n]);
}

static void token(const struct node *node, float *state, float *out, int64_t size, int64_t head, int64_t at)
{
    (void)head;
    struct inputs in = {stream(node, 0, at), stream(node, 1, at), stream(node, 2, at),
                        stream(node, 3, at), stream(node, 4, at), stream(node, 5, at)};
    int64_t i = 0;
    for (; i + 2 <= size; i += 2)
        rows_of_state(&in, state + i * size, out, size, i, 2);
    if (i < size)
        rows_of_state(&in, state + i * size, out, size, i, 1);
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    for (int64_t unit = first; unit < last; unit++)
        walk(node, unit, 6, (float *)work->own, token);
}

static bool plan(struct geometry *g) { return plan_recurrence(g, 6, walk_heads); }

KERNEL(rwkv_wkv7, GGML_OP_RWKV_WKV7, plan);
