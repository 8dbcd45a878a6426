/* ARGMAX: the last place of each row's largest element; a NaN is forgotten at the next number, with all that came before it. */
#include "elements.h"
#include "vector.h"

/* Without a NaN: the last place that holds the largest; 0 in an empty row. */
static int32_t last_place(const f32 *x, int64_t n, float largest)
{
    int64_t i = max64(n - 1, 0);
    while (i >= LANES && !any(load16(x + i + 1 - LANES) == splat(largest)))
        i -= LANES;
    while (i > 0 && x[i] != largest)
        i--;
    return (int32_t)i;
}

static int32_t place_of_largest(const f32 *x, int64_t n)
{
    f32x16 most = splat(-INFINITY), others = most; /* a comparison takes as long as several begin */
    i32x16 strange = {0};
    int64_t at = 0;
    for (; at + 2 * LANES <= n; at += 2 * LANES) {
        f32x16 v = load16(x + at), w = load16(x + at + LANES);
        most = choose(v > most, v, most);
        others = choose(w > others, w, others);
        strange |= (v != v) | (w != w);
    }
    for (; at + LANES <= n; at += LANES) {
        f32x16 v = load16(x + at);
        most = choose(v > most, v, most);
        strange |= v != v;
    }
    most = choose(others > most, others, most);
    float above = max16(most);
    for (int64_t i = n / LANES * LANES; i < n; i++) {
        above = x[i] > above ? x[i] : above;
        strange[0] |= x[i] != x[i];
    }
    if (!any(strange))
        return last_place(x, n, above);

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
    add_phase(g, search_rows, g->src[0].ne[1], 0.3 * g->src[0].ne[0]);
    return true;
}

KERNEL(argmax, GGML_OP_ARGMAX, plan);
