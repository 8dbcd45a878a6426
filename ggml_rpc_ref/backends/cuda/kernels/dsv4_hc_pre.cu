/* DSV4_HC_PRE: the streams of DeepSeek V4's hyper-connections joined to one, each with its weight; a thread for each result.

   In some versions the sum has a factor, and weights may be gates, one for each element. */
#include "kernel.cuh"

DEVICE double weight_at(const struct geometry *g, bool gated, int64_t i, int64_t stream, int64_t token)
{
    if (!gated)
        return f32_at(at(&g->src[1], stream, token, 0, 0));
    return 1 / (1 + exp(-(double)f32_at(at(&g->src[1], i, stream, token, 0))));
}

KERNEL(dsv4_hc_pre)
{
    const struct operand *x = &g.src[0];
    bool scaled = has_change(&g, CHANGE_DSV4_HC_PRE_SCALE), gated = scaled && dsv4_hc_pre_gated(&g);
    double factor = scaled ? dsv4_hc_pre_scale(&g) : 1;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        double sum = 0;
        for (int64_t stream = 0; stream < x->ne[1]; stream++)
            sum += f32_at(at(x, p.i0, stream, p.i1, 0)) * weight_at(&g, gated, p.i0, stream, p.i1);
        *(float *)at_place(&g.dst, p) = (float)(sum * factor);
    }
}
