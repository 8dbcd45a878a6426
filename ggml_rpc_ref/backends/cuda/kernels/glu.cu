/* GLU: dst = f(x) * y, x and y two tensors or the halves of one. */
#include "activation.cuh"

/* Comparisons with NaN are false: it passes. */
DEVICE float at_most(float x, float limit) { return x > limit ? limit : x; }
DEVICE float within(float y, float limit) { return y < -limit ? -limit : at_most(y, limit); }

template <typename real> DEVICE real gate(const struct geometry *g, float x, float y)
{
    switch (glu_kind(g)) {
    case GGML_GLU_OP_REGLU: return x > 0 ? x * y : 0; /* then 0 whatever y is */
    case GGML_GLU_OP_GEGLU:
        if (sizeof(real) == 4)
            return x <= -10 ? 0 : gelu_of_f32(x) * y;
        return gelu((real)x) * y;
    case GGML_GLU_OP_SWIGLU: return silu((real)x) * y;
    case GGML_GLU_OP_GEGLU_QUICK: return gelu_quick((real)x) * y;
    case GGML_GLU_OP_GEGLU_ERF: return gelu_erf((real)x) * y;
    case GGML_GLU_OP_SWIGLU_CLAMP: { /* the exponential is rounded to float32, in which it overflows below -88.7 */
        double a = at_most(x, glu_limit(g));
        return (real)(a / (1 + (double)(float)exp(-a)) * within(y, glu_limit(g)));
    }
    default: { /* SWIGLU_OAI */
        double a = at_most(x, glu_limit(g)), b = within(y, glu_limit(g));
        return (real)(a / (1 + exp(-(double)glu_alpha(g) * a)) * (b + 1));
    }
    }
}

KERNEL(glu)
{
    int64_t n = g.dst.ne[0];
    bool halves = !present(&g.src[1]), swapped = glu_swapped(&g) != 0;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i), q = p, r = p;
        if (halves) {
            q.i0 += swapped ? n : 0;
            r.i0 += swapped ? 0 : n;
        }
        float x = load(g.src[0].type, at_place(&g.src[0], q));
        float y = load(g.dst.type, at_place(halves ? &g.src[0] : &g.src[1], r));
        store(g.dst.type, at_place(&g.dst, p), g.dst.type == GGML_TYPE_F32 ? gate<float>(&g, x, y) : (float)gate<double>(&g, x, y));
    }
}
