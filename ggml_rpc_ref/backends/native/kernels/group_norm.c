/* GROUP_NORM: groups of channels, with all of ne[0] and ne[1], shifted to mean 0 and scaled to variance 1. A unit is a group. */
#include "elements.h"
#include "rowwise.h"
#include "sums.h"

static int64_t channels_of_group(const struct geometry *g) { return parts_of(g->dst.ne[2], group_norm_n_groups(g)); }
static int64_t groups_of(const struct geometry *g) { return parts_of(g->dst.ne[2], channels_of_group(g)); }

/* For each row of the channels from begin to end: EXPRESSION of x, its elements. */
#define EACH_ROW(...)                                                                                \
    for (int64_t c = begin; c < end; c++)                                                            \
        for (int64_t i1 = 0; i1 < g->dst.ne[1]; i1++) {                                              \
            const float *a = (const float *)row_at(&g->src[0], node->src[0], i1, c, i3);             \
            __VA_ARGS__;                                                                             \
        }

static void norm_groups(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0], size = channels_of_group(g);
    for (int64_t unit = first; unit < last; unit++) {
        int64_t i3 = unit / groups_of(g), begin = unit % groups_of(g) * size, end = min64(begin + size, g->dst.ne[2]);
        double sum = 0, squares = 0, count = (double)(n * g->dst.ne[1] * (end - begin));
        EACH_ROW(sum += sum_of_row(a, n))
        float mean = (float)(sum / count);
        EACH_ROW(squares += sum_of_squares_about(a, n, mean))
        f32x16 scale = splat(1.0f / sqrtf((float)(squares / count) + group_norm_eps(g)));
        EACH_ROW(float *dst = (float *)row_at(&g->dst, node->dst, i1, c, i3); MAP1(dst, a, n, (x - mean) * scale))
    }
}

static bool plan(struct geometry *g)
{
    int64_t units = groups_of(g) * g->dst.ne[3];
    add_phase(g, norm_groups, units, 0.8 * elements(&g->dst) / units);
    return true;
}

KERNEL(group_norm, GGML_OP_GROUP_NORM, plan);
