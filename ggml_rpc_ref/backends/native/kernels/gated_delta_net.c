/* GATED_DELTA_NET: linear attention by the delta rule. src: q, k, v, g, beta, state; a unit is a head of a sequence.

   The result ends with the states after each of the last K tokens, oldest or newest first as the version has it. */
#include "recurrence.h"

#define AT_ONCE 4 /* rows of the state */
#define EACH_ROW _Pragma("GCC unroll 4") for (int n = 0; n < count; n++)

static bool has_slots(const struct geometry *g) { return has_change(g, CHANGE_GATED_DELTA_NET_STATE_SLOTS); }

/* How many states are kept. */
static int64_t snapshots(const struct geometry *g)
{
    if (has_slots(g))
        return g->src[5].ne[1];
    return has_change(g, CHANGE_GATED_DELTA_NET_SNAPSHOTS) ? gated_delta_net_snapshots(g) : 1;
}

/* Heads take those of q or k in turn, sequences in runs. */
static const f32 *shared_row(const struct node *node, int slot, int64_t head, int64_t t, int64_t sequence)
{
    const struct layout *l = &node->of->src[slot];
    return floats(l, node->src[slot], head % l->ne[1], t, sequence / (node->of->src[2].ne[3] / l->ne[3]));
}

/* What a token brings to a head. */
struct inputs {
    const f32 *q, *k, *v;
    const float *kept; /* how much of the state stays */
    float beta, root;
};

/* Some rows of the state, from row i on, which share what is loaded. */
static inline __attribute__((always_inline)) void rows_of_state(const struct inputs *in, float *state, f32 *out, int64_t size, int64_t i,
                                                                const int count, const bool whole)
{
    f32x16 expected[AT_ONCE] = {{0}}, read[AT_ONCE] = {{0}}, error[AT_ONCE];
    EACH_VECTOR(size)
    {
        f32x16 kept = load_of(in->kept + j, left, whole), k = load_of(in->k + j, left, whole);
        EACH_ROW
        {
            f32x16 s = load_of(state + n * size + j, left, whole) * kept;
            store_of(state + n * size + j, s, left, whole);
            expected[n] = fma16(s, k, expected[n]);
        }
    }
    EACH_ROW error[n] = splat((in->v[i + n] - sum16(expected[n])) * in->beta);
    EACH_VECTOR(size)
    {
        f32x16 k = load_of(in->k + j, left, whole), q = load_of(in->q + j, left, whole);
        EACH_ROW
        {
            f32x16 s = fma16(error[n], k, load_of(state + n * size + j, left, whole));
            store_of(state + n * size + j, s, left, whole);
            read[n] = fma16(s, q, read[n]);
        }
    }
    EACH_ROW out[i + n] = sum16(read[n]) / in->root;
}

static inline __attribute__((always_inline)) void all_rows(const struct inputs *in, float *state, f32 *out, int64_t size,
                                                           const bool whole)
{
    int64_t i = 0;
    for (; i + AT_ONCE <= size; i += AT_ONCE)
        rows_of_state(in, state + i * size, out, size, i, AT_ONCE, whole);
    for (; i < size; i++)
        rows_of_state(in, state + i * size, out, size, i, 1, whole);
}

static void walk_token(const struct node *node, float *state, int64_t head, int64_t t, int64_t sequence)
{
    const struct layout *value = &node->of->src[2], *gates = &node->of->src[3];
    int64_t size = value->ne[0], at = (sequence * value->ne[2] + t) * value->ne[1] + head;
    const f32 *gate = (const f32 *)node->src[3] + at * gates->ne[0];
    float *kept = state + size * size;
    f32x16 same = exp16(splat(gate[0]));
    EACH_VECTOR(size)
    store_part(kept + j, gates->ne[0] == 1 ? same : exp16(load_part(gate + j, left)), left);
    struct inputs in = {shared_row(node, 0, head, t, sequence), shared_row(node, 1, head, t, sequence),
                        floats(value, node->src[2], head, t, sequence), kept, ((const f32 *)node->src[4])[at], sqrtf((float)size)};
    f32 *out = (f32 *)node->dst + at * size;
    if (size % LANES == 0)
        all_rows(&in, state, out, size, true);
    else
        all_rows(&in, state, out, size, false);
}

/* Write the state of a head as it is after the token that `age` others follow. */
static void keep(const struct node *node, const float *state, int64_t unit, int64_t age)
{
    const struct geometry *g = node->of;
    const struct layout *value = &g->src[2];
    int64_t size = value->ne[0], units = value->ne[1] * value->ne[3];
    if (age >= snapshots(g))
        return;
    int64_t place = has_slots(g) ? snapshots(g) - 1 - age : age;
    f32 *to = (f32 *)node->dst + elements(value) + (place * units + unit) * size * size;
    for (int64_t i = 0; i < size * size; i++)
        to[i] = state[i];
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t size = g->src[2].ne[0], heads = g->src[2].ne[1], tokens = g->src[2].ne[2];
    float *state = (float *)work->own;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t sequence = unit / heads, head = unit % heads, slots = has_slots(g) ? snapshots(g) : 1;
        const f32 *start = (const f32 *)node->src[5] + (sequence * slots * heads + head) * size * size;
        for (int64_t i = 0; i < size * size; i++)
            state[i] = start[i];
        if (tokens == 0 && snapshots(g) == 1)
            keep(node, state, unit, 0);
        for (int64_t t = 0; t < tokens; t++) {
            walk_token(node, state, head, t, sequence);
            keep(node, state, unit, tokens - 1 - t);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *v = &g->src[2];
    g->own = 4 * (v->ne[0] * v->ne[0] + v->ne[0]);
    add_phase(g, walk_heads, v->ne[1] * v->ne[3], 0.7 * v->ne[0] * v->ne[0] * v->ne[2]);
    return true;
}

KERNEL(gated_delta_net, GGML_OP_GATED_DELTA_NET, plan);
