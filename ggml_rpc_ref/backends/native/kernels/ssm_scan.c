/* SSM_SCAN: the recurrence of Mamba; a unit is a head of a sequence, whose state is float32.

   src: states, x, dt, A, B, C, ids. The result: y in the order of x, then the states after each of the last K tokens, the newest
   first. */
#include "recurrence.h"

static int64_t snapshots(const struct geometry *g) { return has_change(g, CHANGE_SSM_SCAN_SNAPSHOTS) ? ssm_scan_snapshots(g) : 1; }

/* Groups have heads in a row; in some versions they get them in turn. */
static int64_t group_of(const struct geometry *g, int64_t head)
{
    int64_t groups = g->src[4].ne[1];
    return has_change(g, CHANGE_SSM_SCAN_GROUPS) ? head % groups : head / (g->src[0].ne[2] / groups);
}

/* ln(1 + e^x), or x above 20, rounded to float32 at each step. */
static float softplus(float x)
{
    return x > 20 ? x : (float)log((double)(1.0f + (float)exp((double)x)));
}

static void walk_token(const struct node *node, float *state, int64_t head, int64_t t, int64_t sequence)
{
    const struct geometry *g = node->of;
    int64_t n = g->src[0].ne[0], dim = g->src[0].ne[1], heads = g->src[0].ne[2], group = group_of(g, head);
    const f32 *x = floats(&g->src[1], node->src[1], head, t, sequence);
    const f32 *into = floats(&g->src[4], node->src[4], group, t, sequence), *out = floats(&g->src[5], node->src[5], group, t, sequence);
    const f32 *a = floats(&g->src[3], node->src[3], head, 0, 0);
    float delta = softplus(f32_at(&g->src[2], node->src[2], head, t, sequence, 0)), *decay = state + n * dim;
    f32x16 same = exp16(splat(delta * a[0]));
    EACH_VECTOR(n)
    store_part(decay + j, g->src[3].ne[0] == 1 ? same : exp16(load_part(a + j, left) * delta), left);
    f32 *y = (f32 *)node->dst + ((sequence * g->src[1].ne[2] + t) * heads + head) * dim;
    for (int64_t i = 0; i < dim; i++, state += n) {
        f32x16 taken = splat(x[i] * delta), read = {0};
        EACH_VECTOR(n)
        {
            f32x16 s = fma16(load_part(state + j, left), load_part(decay + j, left), taken * load_part(into + j, left));
            store_part(state + j, s, left);
            read = fma16(s, load_part(out + j, left), read);
        }
        y[i] = sum16(read);
    }
}

static void walk_heads(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t size = g->src[0].ne[0] * g->src[0].ne[1], heads = g->src[0].ne[2], tokens = g->src[1].ne[2], sequences = g->src[1].ne[3];
    float *state = (float *)work->own;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t sequence = unit / heads, head = unit % heads;
        int64_t slot = *(const i32 *)element(&g->src[6], node->src[6], sequence, 0, 0, 0);
        if (!in_range(slot, g->src[0].ne[3], work))
            return;
        const f32 *start = floats(&g->src[0], node->src[0], 0, head, slot);
        for (int64_t i = 0; i < size; i++)
            state[i] = start[i];
        for (int64_t t = 0; t < tokens; t++) {
            walk_token(node, state, head, t, sequence);
            int64_t age = tokens - 1 - t;
            f32 *kept = (f32 *)node->dst + elements(&g->src[1]) + (age * sequences * heads + unit) * size;
            for (int64_t i = 0; i < size && age < snapshots(g); i++)
                kept[i] = state[i];
        }
    }
}

static bool plan(struct geometry *g)
{
    int64_t n = g->src[0].ne[0], dim = g->src[0].ne[1];
    g->own = 4 * (n * dim + n);
    add_phase(g, walk_heads, g->src[0].ne[2] * g->src[1].ne[3], (0.5 * dim + 2.0) * n * g->src[1].ne[2]);
    return true;
}

KERNEL(ssm_scan, GGML_OP_SSM_SCAN, plan);
