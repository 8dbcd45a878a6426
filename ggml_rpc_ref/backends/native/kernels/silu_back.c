/* SILU_BACK: dst = grad s (1 + x (1 - s)) with s = 1 / (1 + e^-x); F32 or F16. */
#include "activation.h"
#include "pieces.h"
#include "rowwise.h"

static f32x16 gradient(f32x16 grad, f32x16 x)
{
    f32x16 s = sigmoid16(x);
    return grad * s * (1.0f + x * (1.0f - s));
}

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float grad[PIECE], values[PIECE];
    for (int64_t row = first; row < last; row++) {
        uint8_t *to = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], row_of(&g->src[0], node->src[0], row), i, n, grad);
            read_piece(&g->src[1], row_of(&g->src[1], node->src[1], row), i, n, values);
            MAP2(grad, grad, values, n, gradient(x, y));
            write_piece(&g->dst, to, i, n, grad);
        }
    }
}

static bool plan(struct geometry *g)
{
    return dense_rows(&g->src[0]) && dense_rows(&g->src[1]) && dense_rows(&g->dst) && plan_rows(g, compute_rows, 2.5);
}

KERNEL(silu_back, GGML_OP_SILU_BACK, plan);
