/* TIMESTEP_EMBEDDING: cosines, then sines, of each time step at falling frequencies; 0 in the last place where dim is odd.

   In some versions dst is then longer by one, and the place before the last is left as it is. */
#include "kernel.cuh"

/* max_period^(-j / half), rounded to float32 where upstream has a float, from left to right. */
DEVICE float frequency(float logarithm, int64_t j, int64_t half) { return (float)exp((double)(-logarithm * (float)j / (float)half)); }

KERNEL(timestep_embedding)
{
    int64_t dim = timestep_embedding_dim(&g), half = dim / 2;
    float logarithm = (float)log((double)(float)timestep_embedding_max_period(&g));
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        double result = 0;
        if (has_change(&g, CHANGE_TIMESTEP_EMBEDDING_ODD) && p.i0 >= 2 * half && p.i0 < dim)
            continue;
        if (p.i0 < 2 * half) {
            double angle = f32_at(at(&g.src[0], p.i1, 0, 0, 0)) * frequency(logarithm, p.i0 % half, half);
            result = p.i0 < half ? cos(angle) : sin(angle);
        }
        *(float *)at_place(&g.dst, p) = (float)result;
    }
}
