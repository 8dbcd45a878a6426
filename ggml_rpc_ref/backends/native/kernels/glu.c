/* GLU: dst = f(x) * y, x and y two tensors or the halves of one. F32. */
#include "activation.h"
#include "rowwise.h"

/* Both operands cut at a limit, x only above. */
static f32x16 swiglu_oai16(f32x16 x, f32x16 y, float alpha, float limit)
{
    x = choose(x > splat(limit), splat(limit), x);
    y = choose(y < splat(-limit), splat(-limit), choose(y > splat(limit), splat(limit), y));
    return x / (1.0f + exp16(x * -alpha)) * (y + 1.0f);
}

static void gate(const struct geometry *g, float *dst, const float *a, const float *b, int64_t n)
{
    switch (glu_kind(g)) {
    case GGML_GLU_OP_REGLU: MAP2(dst, a, b, n, choose(x > splat(0), x * y, splat(0))); break;
    case GGML_GLU_OP_GEGLU: MAP2(dst, a, b, n, choose(x <= splat(-10), splat(0), gelu16(x) * y)); break;
    case GGML_GLU_OP_SWIGLU: MAP2(dst, a, b, n, silu16(x) * y); break;
    case GGML_GLU_OP_GEGLU_QUICK: MAP2(dst, a, b, n, gelu_quick16(x) * y); break;
    case GGML_GLU_OP_SWIGLU_OAI: MAP2(dst, a, b, n, swiglu_oai16(x, y, glu_alpha(g), glu_limit(g))); break;
    default:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)(0.5 * a[i] * (1.0 + erf(a[i] * 0.70710678118654752440)) * b[i]);
    }
}

static void gate_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    int64_t n = g->dst.ne[0];
    for (int64_t row = first; row < last; row++) {
        const float *a = (const float *)row_of(&g->src[0], node->src[0], row), *b;
        if (present(&g->src[1])) {
            b = (const float *)row_of(&g->src[1], node->src[1], row);
        } else if (glu_swapped(g)) {
            b = a;
            a += n;
        } else {
            b = a + n;
        }
        gate(g, (float *)row_of(&g->dst, node->dst, row), a, b, n);
    }
}

static bool plan(struct geometry *g)
{
    int kind = glu_kind(g);
    bool known = kind == GGML_GLU_OP_REGLU || kind == GGML_GLU_OP_GEGLU || kind == GGML_GLU_OP_SWIGLU ||
                 kind == GGML_GLU_OP_GEGLU_QUICK || kind == GGML_GLU_OP_SWIGLU_OAI || kind == GGML_GLU_OP_GEGLU_ERF;
    bool plain = plain_f32(&g->dst) && plain_f32(&g->src[0]) && (!present(&g->src[1]) || plain_f32(&g->src[1]));
    return known && plain && plan_rows(g, gate_rows, 2);
}

KERNEL(glu, GGML_OP_GLU, plan);
