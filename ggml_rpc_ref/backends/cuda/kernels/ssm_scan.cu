/* SSM_SCAN: the recurrence of Mamba. A thread for each channel of each head and sequence walks through the tokens; its state, in
   float32, is where the final one is wanted, behind all y. In some versions those after some tokens before the last one are kept
   behind it. */
#include "kernel.cuh"

enum { STATE, X, DT, A, B, C, IDS };

/* ln(1 + e^x), or x above 20, rounded to float32 at each step. */
DEVICE float softplus(float x) { return x > 20 ? x : (float)log((double)(1.0f + (float)exp((double)x))); }

/* Groups have heads in a row; in some versions they get them in turn. */
DEVICE int64_t group_of(const struct geometry *g, int64_t head)
{
    int64_t groups = g->src[B].ne[1];
    return has_change(g, CHANGE_SSM_SCAN_GROUPS) ? head % groups : head / (g->src[STATE].ne[2] / groups);
}

KERNEL(ssm_scan)
{
    const struct operand *src = g.src;
    int64_t n = src[STATE].ne[0], dim = src[STATE].ne[1], heads = src[STATE].ne[2], tokens = src[X].ne[2];
    int64_t snapshots = has_change(&g, CHANGE_SSM_SCAN_SNAPSHOTS) ? ssm_scan_snapshots(&g) : 1;
    int64_t all = n * dim * heads * src[X].ne[3]; /* elements of all states */
    EACH(i, dim * heads * src[X].ne[3]) {
        int64_t channel = i % dim, head = i / dim % heads, sequence = i / dim / heads, group = group_of(&g, head);
        int32_t slot = i32_at(at(&src[IDS], sequence, 0, 0, 0));
        if (slot < 0 || slot >= src[STATE].ne[3]) {
            bad_index(&g);
            continue;
        }
        float *state = (float *)g.dst.data + elements_of(&src[X]) + i * n;
        for (int64_t j = 0; j < n; j++)
            state[j] = f32_at(at(&src[STATE], j, channel, head, slot));
        for (int64_t t = 0; t < tokens; t++) {
            float delta = softplus(f32_at(at(&src[DT], head, t, sequence, 0)));
            float taken = f32_at(at(&src[X], channel, head, t, sequence)) * delta, y = 0;
            for (int64_t j = 0; j < n; j++) {
                float decay = expf(delta * f32_at(at(&src[A], src[A].ne[0] == 1 ? 0 : j, head, 0, 0)));
                state[j] = fmaf(state[j], decay, f32_at(at(&src[B], j, group, t, sequence)) * taken);
                y = fmaf(state[j], f32_at(at(&src[C], j, group, t, sequence)), y);
            }
            ((float *)g.dst.data)[((sequence * tokens + t) * heads + head) * dim + channel] = y;
            int64_t age = tokens - 1 - t;
            for (int64_t j = 0; j < n && age > 0 && age < snapshots; j++)
                state[age * all + j] = state[j];
        }
    }
}
