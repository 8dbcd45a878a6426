/* ARGMAX: the last place of each row's largest element; a NaN is forgotten at the next number, with all that came before it. */
#include "elements.h"

static int32_t place_of_largest(const f32 *x, int64_t n)
{
    float largest = -INFINITY;
    int32_t place = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = largest > x[i] ? largest : x[i];
        if (largest == x[i])
            place = (int32_t)i;
    }
    return place;
}

static void search_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++)
        *(i32 *)element(&g->dst, node->dst, row, 0, 0, 0) =
            place_of_largest(floats(&g->src[0], node->src[0], row, 0, 0), g->src[0].ne[0]);
}

static bool plan(struct geometry *g)
{
    add_phase(g, search_rows, g->src[0].ne[1], g->src[0].ne[0]);
    return true;
}

KERNEL(argmax, GGML_OP_ARGMAX, plan);
