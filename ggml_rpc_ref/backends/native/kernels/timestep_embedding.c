/* TIMESTEP_EMBEDDING: cosines, then sines, of each time step at falling frequencies; the last place is 0 where dim is odd.

   In some versions dst is then longer by one, and the place before the last is left as it is. */
#include "elements.h"

/* max_period^(-j / half), rounded to float32 where upstream has a float, from left to right. */
static float frequency(int32_t max_period, int64_t j, int64_t half)
{
    float exponent = -(float)log((double)(float)max_period) * (float)j / (float)half;
    return (float)exp((double)exponent);
}

static void embed_steps(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t half = timestep_embedding_dim(g) / 2;
    for (int64_t row = first; row < last; row++) {
        float step = f32_at(&g->src[0], node->src[0], row, 0, 0, 0);
        f32 *dst = floats(&g->dst, node->dst, row, 0, 0);
        for (int64_t j = 0; j < half; j++) {
            double angle = step * frequency(timestep_embedding_max_period(g), j, half);
            dst[j] = (float)cos(angle);
            dst[half + j] = (float)sin(angle);
        }
        if (timestep_embedding_dim(g) % 2)
            dst[g->dst.ne[0] - 1] = 0;
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, embed_steps, 40); }

KERNEL(timestep_embedding, GGML_OP_TIMESTEP_EMBEDDING, plan);
