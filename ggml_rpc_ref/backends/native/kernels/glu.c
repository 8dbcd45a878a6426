/* GLU: dst = f(x) * y, x and y two tensors or the halves of one. F32, F16 and BF16: in float32, rounded once. */
#include "activation.h"
#include "pieces.h"
#include "rowwise.h"

static f32x16 within16(f32x16 y, float limit)
{
    return choose(y < splat(-limit), splat(-limit), choose(y > splat(limit), splat(limit), y));
}

/* Both operands cut at a limit, x only above. */
static f32x16 swiglu_oai16(f32x16 x, f32x16 y, float alpha, float limit)
{
    x = choose(x > splat(limit), splat(limit), x);
    return x / (1.0f + exp16(x * -alpha)) * (within16(y, limit) + 1.0f);
}

static f32x16 swiglu_clamp16(f32x16 x, f32x16 y, float limit)
{
    return silu16(choose(x > splat(limit), splat(limit), x)) * within16(y, limit);
}

static void gate(const struct geometry *g, float *dst, const float *a, const float *b, int64_t n)
{
    switch (glu_kind(g)) {
    case GGML_GLU_OP_REGLU: MAP2(dst, a, b, n, choose(x > splat(0), x * y, splat(0))); break;
    case GGML_GLU_OP_GEGLU:
        if (is_f32(&g->dst))
            MAP2(dst, a, b, n, choose(x <= splat(-10), splat(0), gelu16(x) * y));
        else
            MAP2(dst, a, b, n, gelu_of_half16(x) * y);
        break;
    case GGML_GLU_OP_SWIGLU: MAP2(dst, a, b, n, silu16(x) * y); break;
    case GGML_GLU_OP_GEGLU_QUICK: MAP2(dst, a, b, n, gelu_quick16(x) * y); break;
    case GGML_GLU_OP_SWIGLU_OAI: MAP2(dst, a, b, n, swiglu_oai16(x, y, glu_alpha(g), glu_limit(g))); break;
    case GGML_GLU_OP_SWIGLU_CLAMP: MAP2(dst, a, b, n, swiglu_clamp16(x, y, glu_limit(g))); break;
    default: MAP2(dst, a, b, n, gelu_erf16(x) * y);
    }
}

/* Both halves of a row. */
struct halves {
    const uint8_t *x, *y;
};

static struct halves halves_of(const struct node *node, int64_t row)
{
    const struct geometry *g = node->of;
    const uint8_t *a = row_of(&g->src[0], node->src[0], row);
    if (present(&g->src[1]))
        return (struct halves){a, row_of(&g->src[1], node->src[1], row)};
    const uint8_t *second = a + row_size(g->dst.type, g->dst.ne[0]);
    return glu_swapped(g) ? (struct halves){second, a} : (struct halves){a, second};
}

static void gate_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++) {
        struct halves h = halves_of(node, row);
        gate(g, (float *)row_of(&g->dst, node->dst, row), (const float *)h.x, (const float *)h.y, g->dst.ne[0]);
    }
}

static void gate_pieces(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float x[PIECE], y[PIECE];
    for (int64_t row = first; row < last; row++) {
        struct halves h = halves_of(node, row);
        uint8_t *to = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->dst, h.x, i, n, x);
            read_piece(&g->dst, h.y, i, n, y);
            gate(g, x, x, y, n);
            write_piece(&g->dst, to, i, n, x);
        }
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *y = present(&g->src[1]) ? &g->src[1] : &g->src[0];
    int kind = glu_kind(g);
    bool known = kind >= GGML_GLU_OP_REGLU && kind <= GGML_GLU_OP_SWIGLU_CLAMP;
    if (!known || !is_float(&g->dst) || !dense_rows(&g->dst) || !dense_rows(&g->src[0]) || !dense_rows(y))
        return false;
    return plan_rows(g, is_f32(&g->dst) ? gate_rows : gate_pieces, 2);
}

KERNEL(glu, GGML_OP_GLU, plan);
