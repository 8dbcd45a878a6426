/* TIMESTEP_EMBEDDING: cosines, then sines, of each time step at falling frequencies; the last place is 0 where dim is odd.

   In some versions dst is then longer by one, and the place before the last is left as it is. */
#include "elements.h"

/* max_period^(-j / half), rounded to float32 where upstream has a float, from left to right. */
static float frequency(float logarithm, int64_t j, int64_t half) { return (float)exp((double)(-logarithm * (float)j / (float)half)); }

/* Phase 1: the frequencies, which all steps share. */
static void list_frequencies(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last;
    int64_t half = timestep_embedding_dim(node->of) / 2;
    float logarithm = (float)log((double)(float)timestep_embedding_max_period(node->of));
    for (int64_t j = 0; j < half; j++)
        ((float *)work->shared)[j] = frequency(logarithm, j, half);
}

static void embed_steps(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const float *frequency = (const float *)work->shared;
    int64_t half = timestep_embedding_dim(g) / 2;
    for (int64_t row = first; row < last; row++) {
        float step = f32_at(&g->src[0], node->src[0], row, 0, 0, 0);
        f32 *dst = floats(&g->dst, node->dst, row, 0, 0);
        for (int64_t j = 0; j < half; j++) {
            double angle = step * frequency[j];
            dst[j] = (float)cos(angle);
            dst[half + j] = (float)sin(angle);
        }
        if (timestep_embedding_dim(g) % 2)
            dst[g->dst.ne[0] - 1] = 0;
    }
}

static bool plan(struct geometry *g)
{
    int64_t half = timestep_embedding_dim(g) / 2;
    g->shared = 4 * half;
    if (half)
        add_phase(g, list_frequencies, 1, 20.0 * half);
    return plan_rows(g, embed_steps, 40);
}

KERNEL(timestep_embedding, GGML_OP_TIMESTEP_EMBEDDING, plan);
