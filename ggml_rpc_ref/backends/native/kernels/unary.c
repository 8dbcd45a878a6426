/* UNARY: a function of each element, chosen by the kind; in float32, rounded once to dst's type.

   What models use most is computed for sixteen elements at a time (activation.h). */
#include "activation.h"
#include "pieces.h"
#include "rowwise.h"

static float sign(float x) { return x > 0 ? 1 : x < 0 ? -1 : 0; }

/* fmaxf takes NaN for less than 0. */
static float hard_sigmoid(float x) { return fminf(1, fmaxf(0, (x + 3) / 6)); }

static float softplus(float x) { return x > 20 ? x : (float)log1p(exp(x)); }
static float gelu_erf(float x) { return (float)(0.5 * x * (1.0 + erf(x * 0.70710678118654752440))); }

static float xielu(const struct geometry *g, float x)
{
    float beta = unary_beta(g);
    if (x > 0)
        return unary_alpha_p(g) * x * x + beta * x;
    return (expm1f(fminf(x, unary_eps(g))) - x) * unary_alpha_n(g) + beta * x;
}

#define EACH(EXPRESSION)              \
    for (int64_t i = 0; i < n; i++) { \
        float x = value[i];           \
        value[i] = EXPRESSION;        \
    }

static void apply(const struct geometry *g, float *value, int64_t n)
{
    switch (unary_kind(g)) {
    case GGML_UNARY_OP_ABS: EACH(fabsf(x)) break;
    case GGML_UNARY_OP_SGN: EACH(sign(x)) break;
    case GGML_UNARY_OP_NEG: EACH(-x) break;
    case GGML_UNARY_OP_STEP: EACH(x > 0 ? 1 : 0) break;
    case GGML_UNARY_OP_TANH: EACH(tanhf(x)) break;
    case GGML_UNARY_OP_ELU: EACH(x > 0 ? x : expm1f(x)) break;
    case GGML_UNARY_OP_RELU: EACH(x > 0 ? x : 0) break;
    case GGML_UNARY_OP_SIGMOID: MAP1(value, value, n, sigmoid16(x)); break;
    case GGML_UNARY_OP_GELU:
        if (is_f32(&g->dst))
            MAP1(value, value, n, gelu16(x));
        else
            MAP1(value, value, n, gelu_of_half16(x));
        break;
    case GGML_UNARY_OP_GELU_QUICK: MAP1(value, value, n, gelu_quick16(x)); break;
    case GGML_UNARY_OP_SILU: MAP1(value, value, n, silu16(x)); break;
    case GGML_UNARY_OP_HARDSWISH: EACH(x * hard_sigmoid(x)) break;
    case GGML_UNARY_OP_HARDSIGMOID: EACH(hard_sigmoid(x)) break;
    case GGML_UNARY_OP_EXP: MAP1(value, value, n, exp16(x)); break;
    case GGML_UNARY_OP_EXPM1: EACH(expm1f(x)) break;
    case GGML_UNARY_OP_SOFTPLUS: EACH(softplus(x)) break;
    case GGML_UNARY_OP_GELU_ERF: EACH(gelu_erf(x)) break;
    case GGML_UNARY_OP_XIELU: EACH(xielu(g, x)) break;
    case GGML_UNARY_OP_FLOOR: EACH(floorf(x)) break;
    case GGML_UNARY_OP_CEIL: EACH(ceilf(x)) break;
    case GGML_UNARY_OP_ROUND: EACH(roundf(x)) break;
    default: EACH(truncf(x))
    }
}

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float value[PIECE];
    for (int64_t row = first; row < last; row++) {
        const uint8_t *from = row_of(&g->src[0], node->src[0], row);
        uint8_t *to = row_of(&g->dst, node->dst, row);
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], from, i, n, value);
            apply(g, value, n);
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
