/* POOL_2D_BACK: each window's gradient added at its largest element, or its share everywhere under it; in the order of the windows.

   src0: the gradient, src1: the source of POOL_2D. A unit is a plane. */
#include "pooling.h"

/* Where a window's largest element is; NULL: none is above -FLT_MAX. The first of equals; NaN loses its place to the next one. */
static f32 *largest_in(const struct windows *w, const struct windows *h, int64_t o, int64_t oy, f32 *plane, const f32 *forward)
{
    float largest = -FLT_MAX;
    int64_t left = begin_of(w, o), right = end_of(w, o), end = end_of(h, oy), at = -1;
    for (int64_t y = begin_of(h, oy); y < end; y++)
        for (int64_t i = y * w->size + left; i < y * w->size + right; i++) {
            bool larger = !(forward[i] <= largest); /* no jump: which one it is can't be foreseen */
            largest = larger ? forward[i] : largest;
            at = larger ? i : at;
        }
    return at < 0 ? NULL : plane + at;
}

static void spread(const struct windows *w, const struct windows *h, int64_t o, int64_t oy, f32 *plane, float share)
{
    for (int64_t y = begin_of(h, oy); y < end_of(h, oy); y++)
        for (int64_t x = begin_of(w, o); x < end_of(w, o); x++)
            plane[y * w->size + x] += share;
}

static void add_planes(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *gradient = &g->src[0], *dst = &g->dst;
    struct windows w = {dst->ne[0], pool_2d_back_k0(g), pool_2d_back_s0(g), pool_2d_back_p0(g)};
    struct windows h = {dst->ne[1], pool_2d_back_k1(g), pool_2d_back_s1(g), pool_2d_back_p1(g)};
    int64_t size = w.size * h.size; /* all three are contiguous */
    for (int64_t unit = first; unit < last; unit++) {
        f32 *plane = (f32 *)node->dst + unit * size;
        const f32 *forward = (const f32 *)node->src[1] + unit * size;
        const f32 *given = (const f32 *)node->src[0] + unit * gradient->ne[0] * gradient->ne[1];
        memset(plane, 0, (size_t)(4 * size));
        for (int64_t oy = 0; oy < gradient->ne[1]; oy++)
            for (int64_t o = 0; o < gradient->ne[0]; o++) {
                float value = given[oy * gradient->ne[0] + o];
                if (pool_2d_back_op(g) == POOL_MEAN) {
                    spread(&w, &h, o, oy, plane, value / (float)(w.kernel * h.kernel));
                    continue;
                }
                f32 *found = largest_in(&w, &h, o, oy, plane, forward);
                if (found)
                    *found += value;
            }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *gradient = &g->src[0], *dst = &g->dst;
    double taps = (double)min64(pool_2d_back_k0(g), dst->ne[0]) * (double)min64(pool_2d_back_k1(g), dst->ne[1]);
    add_phase(g, add_planes, dst->ne[2] * dst->ne[3], dst->ne[0] * dst->ne[1] + 1.5 * taps * gradient->ne[0] * gradient->ne[1]);
    return true;
}

KERNEL(pool_2d_back, GGML_OP_POOL_2D_BACK, plan);
