/* RWKV_WKV7: a state per head that decays by key, is corrected along b and accumulates key times value. src: r, w, k, v, a, b, state. */
#include "recurrence.h"

#define AT_ONCE 4 /* rows of the state */
#define EACH_ROW _Pragma("GCC unroll 4") for (int n = 0; n < count; n++)

/* The inputs of a token. */
struct inputs {
    const f32 *r, *w, *k, *v, *a, *b;
};

/* Some rows of the state, from row i on, which share what is loaded. */
static inline __attribute__((always_inline)) void rows_of_state(const struct inputs *in, float *state, float *out, int64_t size,
                                                                int64_t i, const int count, const bool whole)
{
    f32x16 correction[AT_ONCE] = {{0}}, read[AT_ONCE] = {{0}};
    EACH_VECTOR(size)
    {
        f32x16 a = load_of(in->a + j, left, whole);
        EACH_ROW correction[n] = fma16(a, load_of(state + n * size + j, left, whole), correction[n]);
    }
    EACH_ROW correction[n] = splat(sum16(correction[n]));
    EACH_VECTOR(size)
    {
        f32x16 w = load_of(in->w + j, left, whole), k = load_of(in->k + j, left, whole), b = load_of(in->b + j, left, whole);
        f32x16 r = load_of(in->r + j, left, whole);
        EACH_ROW
        {
            f32x16 taken = fma16(splat(in->v[i + n]), k, correction[n] * b);
            f32x16 s = fma16(load_of(state + n * size + j, left, whole), w, taken);
            store_of(state + n * size + j, s, left, whole);
            read[n] = fma16(r, s, read[n]);
        }
    }
    EACH_ROW out[i + n] = sum16(read[n]);
}

static inline __attribute__((always_inline)) void all_rows(const struct inputs *in, float *state, float *out, int64_t size,
                                                           const bool whole)
{
    int64_t i = 0;
    for (; i + AT_ONCE <= size; i += AT_ONCE)
        rows_of_state(in, state + i * size, out, size, i, AT_ONCE, whole);
    for (; i < size; i++)
        rows_of_state(in, state + i * size, out, size, i, 1, whole);
}

static void token(const struct node *node, float *state, float *out, int64_t size, int64_t head, int64_t at)
{
    (void)head;
    struct inputs in = {stream(node, 0, at), stream(node, 1, at), stream(node, 2, at),
                        stream(node, 3, at), stream(node, 4, at), stream(node, 5, at)};
    if (size % LANES == 0)
        all_rows(&in, state, out, size, true);
    else
        all_rows(&in, state, out, size, false);
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    for (int64_t unit = first; unit < last; unit++)
        walk(node, unit, 6, (float *)work->own, token);
}

static bool plan(struct geometry *g) { return plan_recurrence(g, 6, walk_heads); }

KERNEL(rwkv_wkv7, GGML_OP_RWKV_WKV7, plan);
