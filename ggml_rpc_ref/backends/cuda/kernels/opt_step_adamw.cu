/* OPT_STEP_ADAMW: one step of the AdamW optimiser, which updates a weight and both of its momenta; a thread for each weight. */
#include "kernel.cuh"

enum { ALPHA, BETA1, BETA2, EPS, WD, BETA1H, BETA2H };

KERNEL(opt_step_adamw)
{
    const struct operand *settings = &g.src[4];
    float s[7];
    for (int k = 0; k < 7; k++)
        s[k] = f32_at(settings->data + 4 * k);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float *w = (float *)at_place(&g.dst, p), *first = (float *)at_place(&g.src[2], p), *second = (float *)at_place(&g.src[3], p);
        float gradient = f32_at(at_place(&g.src[1], p));
        float m = *first * s[BETA1] + gradient * (1 - s[BETA1]), v = *second * s[BETA2] + gradient * gradient * (1 - s[BETA2]);
        *first = m;
        *second = v;
        *w = *w * (1 - s[ALPHA] * s[WD]) - s[ALPHA] * (m * s[BETA1H]) / (sqrtf(v * s[BETA2H]) + s[EPS]);
    }
}
