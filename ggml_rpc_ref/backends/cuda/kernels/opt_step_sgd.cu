/* OPT_STEP_SGD: one step of stochastic gradient descent; a thread for each weight. */
#include "kernel.cuh"

KERNEL(opt_step_sgd)
{
    float alpha = f32_at(g.src[2].data), decay = f32_at(g.src[2].data + 4);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float *w = (float *)at_place(&g.dst, p);
        *w = *w * (1 - alpha * decay) - alpha * f32_at(at_place(&g.src[1], p));
    }
}
