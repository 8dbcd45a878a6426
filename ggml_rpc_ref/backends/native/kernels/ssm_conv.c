/* SSM_CONV: each channel with a kernel of its own over the last tokens; sums in double precision.

   The elements of a channel lie side by side, those of a result token by token: a unit is some tokens, of which a register has as
   many as it holds of one channel; some channels' results are turned around before they are written. */
#include "elements.h"
#include "vector.h"

#define TOKENS 16
#define CHANNELS 16
#define AT_ONCE (LANES / 2) /* numbers in double precision */

/* One channel's results for n tokens, to[token]. Each product is exact in double precision, so that fusing would change nothing. */
static void convolve(const f32 *x, const f32 *kernel, int64_t taps, int64_t n, float *to)
{
    int64_t t = 0;
    for (; t + AT_ONCE <= n; t += AT_ONCE) {
        doubles sum = {0};
        for (int64_t k = 0; k < taps; k++) {
            half_floats some;
            memcpy(&some, x + t + k, sizeof some);
            sum += widened(some) * (double)kernel[k];
        }
        half_floats result = __builtin_convertvector(sum, half_floats);
        memcpy(to + t, &result, sizeof result);
    }
    for (; t < n; t++) {
        double sum = 0;
        for (int64_t k = 0; k < taps; k++)
            sum += (double)x[t + k] * kernel[k];
        to[t] = (float)sum;
    }
}

static int64_t groups_of(const struct geometry *g) { return parts_of(g->dst.ne[1], TOKENS); }

static void convolve_tokens(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float tile[CHANNELS][TOKENS];
    for (int64_t unit = first; unit < last; unit++) {
        int64_t begin = unit % groups_of(g) * TOKENS, n = min64(TOKENS, g->dst.ne[1] - begin), sequence = unit / groups_of(g);
        for (int64_t c = 0; c < g->dst.ne[0]; c += CHANNELS) {
            int64_t channels = min64(CHANNELS, g->dst.ne[0] - c);
            for (int64_t i = 0; i < channels; i++)
                convolve(floats(&g->src[0], node->src[0], c + i, sequence, 0) + begin, floats(&g->src[1], node->src[1], c + i, 0, 0),
                         g->src[1].ne[0], n, tile[i]);
            for (int64_t t = 0; t < n; t++) {
                f32 *dst = floats(&g->dst, node->dst, begin + t, sequence, 0) + c;
                for (int64_t i = 0; i < channels; i++)
                    dst[i] = tile[i][t];
            }
        }
    }
}

static bool plan(struct geometry *g)
{
    double cost = 0.5 + 0.2 * g->src[1].ne[0];
    add_phase(g, convolve_tokens, groups_of(g) * g->dst.ne[2] * g->dst.ne[3], TOKENS * g->dst.ne[0] * cost);
    return true;
}

KERNEL(ssm_conv, GGML_OP_SSM_CONV, plan);
