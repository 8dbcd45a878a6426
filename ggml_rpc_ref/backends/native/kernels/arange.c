/* ARANGE: dst[i] = start + step * i, in double precision, rounded once. */
#include "elements.h"
#include "vector.h"

static void fill_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    double start = arange_start(g), step = arange_step(g);
    int64_t n = g->dst.ne[0];
    doubles number = {0};
    for (int k = 0; k < LANES / 2; k++)
        number[k] = k;
    for (int64_t row = first; row < last; row++) {
        f32 *dst = (f32 *)row_of(&g->dst, node->dst, row);
        int64_t i = 0;
        for (; i + LANES / 2 <= n; i += LANES / 2) {
            half_floats v = __builtin_convertvector(start + step * ((double)(row * n + i) + number), half_floats);
            memcpy(dst + i, &v, sizeof v);
        }
        for (; i < n; i++)
            dst[i] = (float)(start + step * (double)(row * n + i));
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, fill_rows, 1); }

KERNEL(arange, GGML_OP_ARANGE, plan);
