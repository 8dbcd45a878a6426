/* UNARY: a function of each element, chosen by the kind; in float32, rounded once to dst's type.

   What models use most is computed for sixteen elements at a time (activation.h). */
#include "activation.h"
#include "pieces.h"
#include "rowwise.h"

static float sign(float x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

static f32x16 xielu16(const struct geometry *g, f32x16 x)
{
    float beta = unary_beta(g), eps = unary_eps(g);
    f32x16 held = eps == eps ? choose(x < splat(eps), x, splat(eps)) : x; /* fminf: a NaN is passed over */
    return choose(x > splat(0), unary_alpha_p(g) * x * x + beta * x, (expm1_16(held) - x) * unary_alpha_n(g) + beta * x);
}

#define EACH(EXPRESSION)              \
    for (int64_t i = 0; i < n; i++) { \
        float x = a[i];               \
        dst[i] = EXPRESSION;          \
    }

static void apply(const struct geometry *g, f32 *dst, const f32 *a, int64_t n)
{
    switch (unary_kind(g)) {
    case GGML_UNARY_OP_ABS: EACH(fabsf(x)) break;
    case GGML_UNARY_OP_SGN: EACH(sign(x)) break;
    case GGML_UNARY_OP_NEG: EACH(-x) break;
    case GGML_UNARY_OP_STEP: EACH(x > 0 ? 1 : 0) break;
    case GGML_UNARY_OP_TANH: MAP1(dst, a, n, tanh16(x)); break;
    case GGML_UNARY_OP_ELU: MAP1(dst, a, n, choose(x > splat(0), x, expm1_16(x))); break;
    case GGML_UNARY_OP_RELU: EACH(x > 0 ? x : 0) break;
    case GGML_UNARY_OP_SIGMOID: MAP1(dst, a, n, sigmoid16(x)); break;
    case GGML_UNARY_OP_GELU:
        if (is_f32(&g->dst))
            MAP1(dst, a, n, gelu16(x));
        else
            MAP1(dst, a, n, gelu_of_half16(x));
        break;
    case GGML_UNARY_OP_GELU_QUICK: MAP1(dst, a, n, gelu_quick16(x)); break;
    case GGML_UNARY_OP_SILU: MAP1(dst, a, n, silu16(x)); break;
    case GGML_UNARY_OP_HARDSWISH: MAP1(dst, a, n, x * hard_sigmoid16(x)); break;
    case GGML_UNARY_OP_HARDSIGMOID: MAP1(dst, a, n, hard_sigmoid16(x)); break;
    case GGML_UNARY_OP_EXP: MAP1(dst, a, n, exp16(x)); break;
    case GGML_UNARY_OP_EXPM1: MAP1(dst, a, n, expm1_16(x)); break;
    case GGML_UNARY_OP_SOFTPLUS: MAP1(dst, a, n, softplus16(x)); break;
    case GGML_UNARY_OP_GELU_ERF: MAP1(dst, a, n, gelu_erf16(x)); break;
    case GGML_UNARY_OP_XIELU: MAP1(dst, a, n, xielu16(g, x)); break;
    case GGML_UNARY_OP_FLOOR: MAP1(dst, a, n, floor16(x)); break;
    case GGML_UNARY_OP_CEIL: MAP1(dst, a, n, ceil16(x)); break;
    case GGML_UNARY_OP_ROUND: MAP1(dst, a, n, round16(x)); break;
    default: MAP1(dst, a, n, trunc16(x));
    }
}

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float value[PIECE];
    bool plain = is_f32(&g->src[0]) && is_f32(&g->dst);
    for (int64_t row = first; row < last; row++) {
        const uint8_t *from = row_of(&g->src[0], node->src[0], row);
        uint8_t *to = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            if (plain) {
                apply(g, (float *)to + i, (const float *)from + i, n);
                continue;
            }
            read_piece(&g->src[0], from, i, n, value);
            apply(g, value, value, n);
            write_piece(&g->dst, to, i, n, value);
        }
    }
}

static bool plan(struct geometry *g)
{
    int kind = unary_kind(g);
    bool known = kind >= GGML_UNARY_OP_ABS && kind <= GGML_UNARY_OP_TRUNC;
    return known && is_float(&g->src[0]) && is_float(&g->dst) && dense_rows(&g->src[0]) && dense_rows(&g->dst) &&
           plan_rows(g, compute_rows, 2);
}

KERNEL(unary, GGML_OP_UNARY, plan);
