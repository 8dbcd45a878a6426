/* GATED_DELTA_NET: linear attention by the delta rule. A thread for each value of each head and sequence has a row of the state,
   keys innermost, which no other one touches, and walks through the tokens; the state is where the final one is wanted. In some
   versions those after some tokens before the last one are kept too: behind it, or in slots of which the last is the newest. */
#include "kernel.cuh"

enum { Q, K, V, GATE, BETA, STATE };

/* A token's keys or queries for a head: heads share in turn, sequences in runs. */
DEVICE const float *shared_at(const struct geometry *g, int slot, int64_t head, int64_t t, int64_t sequence)
{
    const struct operand *x = &g->src[slot];
    return (const float *)at(x, 0, head % x->ne[1], t, sequence / (g->src[V].ne[3] / x->ne[3]));
}

KERNEL(gated_delta_net)
{
    const struct operand *v = &g.src[V], *gate = &g.src[GATE];
    int64_t size = v->ne[0], heads = v->ne[1], tokens = v->ne[2];
    bool slots = has_change(&g, CHANGE_GATED_DELTA_NET_STATE_SLOTS);
    int64_t snapshots = slots ? g.src[STATE].ne[1] : has_change(&g, CHANGE_GATED_DELTA_NET_SNAPSHOTS) ? gated_delta_net_snapshots(&g) : 1;
    int64_t one = size * size * heads, all = one * v->ne[3]; /* elements of a sequence's states, and of all */
    float scale = 1.0f / sqrtf((float)size);
    EACH(i, size * heads * v->ne[3]) {
        int64_t value = i % size, head = i / size % heads, sequence = i / size / heads;
        float *state = (float *)g.dst.data + elements_of(v) + (slots ? (snapshots - 1) * all : 0) + i * size;
        const float *before = (const float *)g.src[STATE].data + (slots ? sequence * (snapshots - 1) * one : 0) + i * size;
        for (int64_t j = 0; j < size && (tokens || snapshots == 1); j++)
            state[j] = before[j];
        for (int64_t t = 0; t < tokens; t++) {
            const float *q = shared_at(&g, Q, head, t, sequence), *k = shared_at(&g, K, head, t, sequence);
            const float *decay = (const float *)at(gate, 0, head, t, sequence);
            float known = 0, out = 0;
            for (int64_t j = 0; j < size; j++) {
                state[j] *= expf(decay[gate->ne[0] == 1 ? 0 : j]);
                known = fmaf(state[j], k[j], known);
            }
            float error = (f32_at(at(v, value, head, t, sequence)) - known) * f32_at(at(&g.src[BETA], 0, head, t, sequence));
            for (int64_t j = 0; j < size; j++) {
                state[j] = fmaf(error, k[j], state[j]);
                out = fmaf(state[j], q[j], out);
            }
            ((float *)g.dst.data)[((sequence * tokens + t) * heads + head) * size + value] = out * scale;
            int64_t age = tokens - 1 - t;
            for (int64_t j = 0; j < size && age > 0 && age < snapshots; j++)
                state[(slots ? -age : age) * all + j] = state[j];
        }
    }
}
