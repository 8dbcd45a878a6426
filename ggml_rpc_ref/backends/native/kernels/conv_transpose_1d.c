/* CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel, s0 elements after the previous one. src0: kernel, src1: x. */
#include "transposing.h"

#define TAPS 4  /* multiplied at a time, with two vectors of inputs each: their sums stay in registers over all channels */

/* The sums of some taps over all channels: weight is [channels][taps], to [taps][length]. */
static inline __attribute__((always_inline)) void add_taps(const struct node *node, const float *weight, int64_t k, const int count,
                                                           float *to)
{
    const struct layout *kernel = &node->of->src[0], *inputs = &node->of->src[1];
    int64_t length = inputs->ne[0], taps = kernel->ne[0];
    bool half = is_f16(kernel);
    for (int64_t i = 0, left = length; left > 0; i += 2 * LANES, left -= 2 * LANES) {
        f32x16 first[TAPS] = {{0}}, second[TAPS] = {{0}};
        for (int64_t c = 0; c < inputs->ne[1]; c++) {
            const f32 *x = floats(inputs, node->src[1], c, 0, 0) + i;
            const float *w = weight + c * taps + k;
            f32x16 low = load_part(x, left), high = load_part(x + LANES, max64(left - LANES, 0));
            if (half) {
                low = rounded_to_half(low);
                high = rounded_to_half(high);
            }
            _Pragma("GCC unroll 4") for (int t = 0; t < count; t++)
            {
                first[t] = fma16(low, splat(w[t]), first[t]);
                second[t] = fma16(high, splat(w[t]), second[t]);
            }
        }
        for (int t = 0; t < count; t++) {
            store_part(to + (k + t) * length + i, first[t], left);
            store_part(to + (k + t) * length + i + LANES, second[t], max64(left - LANES, 0));
        }
    }
}

static void add_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *kernel = &g->src[0];
    int64_t length = g->src[1].ne[0], channels = g->src[1].ne[1], taps = kernel->ne[0], k;
    float *sum = (float *)work->own, *weight = sum + taps * length;
    for (int64_t row = first; row < last; row++) {
        for (int64_t c = 0; c < channels; c++)
            for (k = 0; k < taps; k++)
                weight[c * taps + k] = float_at(kernel->type, element(kernel, node->src[0], k, row, c, 0));
        for (k = 0; k + TAPS <= taps; k += TAPS)
            add_taps(node, weight, k, TAPS, sum);
        for (; k < taps; k++)
            add_taps(node, weight, k, 1, sum);
        put_together(sum, taps, length, conv_transpose_1d_s0(g), floats(&g->dst, node->dst, row, 0, 0), g->dst.ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    g->own = 4 * g->src[0].ne[0] * (g->src[1].ne[0] + g->src[1].ne[1]);
    add_phase(g, add_rows, g->dst.ne[1], g->dst.ne[0] + 0.1 * g->src[0].ne[0] * (double)elements(&g->src[1]));
    return true;
}

KERNEL(conv_transpose_1d, GGML_OP_CONV_TRANSPOSE_1D, plan);
