/* UNARY: a function of each element, chosen by op_params[0]; SPEC.md lists them. */
#include "activation.cuh"

/* fmaxf and fminf: a NaN counts as less than 0. */
template <typename real> DEVICE real hard_sigmoid(real x) { return fmin((real)1, fmax((real)0, (x + 3) / 6)); }

DEVICE float xielu(const struct geometry *g, float x)
{
    float beta = unary_beta(g);
    if (x > 0)
        return unary_alpha_p(g) * x * x + beta * x;
    return (expm1f(fminf(x, unary_eps(g))) - x) * unary_alpha_n(g) + beta * x;
}

template <typename real> DEVICE real function(const struct geometry *g, real x)
{
    switch (unary_kind(g)) {
    case GGML_UNARY_OP_ABS: return fabs(x);
    case GGML_UNARY_OP_SGN: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case GGML_UNARY_OP_NEG: return -x;
    case GGML_UNARY_OP_STEP: return x > 0 ? 1 : 0;
    case GGML_UNARY_OP_TANH: return tanh(x);
    case GGML_UNARY_OP_ELU: return x > 0 ? x : expm1(x);
    case GGML_UNARY_OP_RELU: return x > 0 ? x : 0;
    case GGML_UNARY_OP_SIGMOID: return 1 / (1 + exp(-x));
    case GGML_UNARY_OP_GELU: return sizeof x == 4 ? (real)gelu_of_f32((float)x) : gelu(x);
    case GGML_UNARY_OP_GELU_QUICK: return gelu_quick(x);
    case GGML_UNARY_OP_SILU: return silu(x);
    case GGML_UNARY_OP_HARDSWISH: return x * hard_sigmoid(x);
    case GGML_UNARY_OP_HARDSIGMOID: return hard_sigmoid(x);
    case GGML_UNARY_OP_EXP: return exp(x);
    case GGML_UNARY_OP_EXPM1: return expm1(x);
    case GGML_UNARY_OP_SOFTPLUS: return x > 20 ? x : log1p(exp(x));
    case GGML_UNARY_OP_GELU_ERF: return gelu_erf(x);
    case GGML_UNARY_OP_XIELU: return xielu(g, (float)x);
    case GGML_UNARY_OP_FLOOR: return floor(x);
    case GGML_UNARY_OP_CEIL: return ceil(x);
    case GGML_UNARY_OP_ROUND: return round(x);
    default: return trunc(x);
    }
}

KERNEL(unary)
{
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float x = load(g.src[0].type, at_place(&g.src[0], p));
        float y = g.dst.type == GGML_TYPE_F32 ? function(&g, x) : (float)function(&g, (double)x);
        store(g.dst.type, at_place(&g.dst, p), y);
    }
}
