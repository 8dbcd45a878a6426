/* GATED_DELTA_NET: linear attention by the delta rule. src: q, k, v, g, beta, state; a unit is a head of a sequence.

   The result ends with the states after each of the last K tokens, oldest or newest first as the version has it. */
#include "recurrence.h"

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

static void walk_token(const struct node *node, float *state, int64_t head, int64_t t, int64_t sequence)
{
    const struct layout *value = &node->of->src[2], *gates = &node->of->src[3];
    int64_t size = value->ne[0], at = (sequence * value->ne[2] + t) * value->ne[1] + head;
    const f32 *q = shared_row(node, 0, head, t, sequence), *k = shared_row(node, 1, head, t, sequence);
    const f32 *v = floats(value, node->src[2], head, t, sequence), *gate = (const f32 *)node->src[3] + at * gates->ne[0];
    float beta = ((const f32 *)node->src[4])[at], root = sqrtf((float)size), *kept = state + size * size;
    f32x16 same = exp16(splat(gate[0]));
    EACH_VECTOR(size)
    store_part(kept + j, gates->ne[0] == 1 ? same : exp16(load_part(gate + j, left)), left);
    f32 *out = (f32 *)node->dst + at * size;
    for (int64_t i = 0; i < size; i++, state += size) {
        f32x16 expected = {0}, read = {0};
        EACH_VECTOR(size)
        {
            f32x16 s = load_part(state + j, left) * load_part(kept + j, left);
            store_part(state + j, s, left);
            expected = fma16(s, load_part(k + j, left), expected);
        }
        f32x16 error = splat((v[i] - sum16(expected)) * beta);
        EACH_VECTOR(size)
        {
            f32x16 s = fma16(error, load_part(k + j, left), load_part(state + j, left));
            store_part(state + j, s, left);
            read = fma16(s, load_part(q + j, left), read);
        }
        out[i] = sum16(read) / root;
    }
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
