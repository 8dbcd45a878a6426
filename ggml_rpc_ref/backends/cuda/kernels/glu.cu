/* GLU: dst = f(x) * y, x and y two tensors or the halves of one. */
#include "activation.cuh"

/* Comparisons with NaN are false: it passes. */
DEVICE float at_most(float x, float limit) { return x > limit ? limit : x; }
DEVICE float within(float y, float limit) { return y < -limit ? -limit : at_most(y, limit); }

/* In float for all types: where f(x) is 0 in float, an infinite y gives NaN. */
DEVICE float gate(const struct geometry *g, float x, float y)
{
    switch (glu_kind(g)) {
    case GGML_GLU_OP_REGLU: return x > 0 ? x * y : 0; /* then 0 whatever y is */
    case GGML_GLU_OP_GEGLU:
        if (g->dst.type == GGML_TYPE_F32)
            return x <= -10 ? 0 : gelu_of_f32(x) * y;
        return gelu(x) * y;
    case GGML_GLU_OP_SWIGLU: return silu(x) * y;
    case GGML_GLU_OP_GEGLU_QUICK: return gelu_quick(x) * y;
    case GGML_GLU_OP_GEGLU_ERF: return gelu_erf(x) * y;
    case GGML_GLU_OP_SWIGLU_CLAMP: return silu(at_most(x, glu_limit(g))) * within(y, glu_limit(g));
    default: /* SWIGLU_OAI */
        x = at_most(x, glu_limit(g));
        return x / (1 + exp(-glu_alpha(g) * x)) * (within(y, glu_limit(g)) + 1);
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
        store(g.dst.type, at_place(&g.dst, p), gate(&g, x, y));
    }
}
