/* REPEAT_BACK: the copies that REPEAT made, added up: a thread for each element of the result, copy after copy. */
#include "kernel.cuh"

KERNEL(repeat_back)
{
    const int64_t *n = g.dst.ne, *m = g.src[0].ne;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        float sum = 0;
        for (int64_t i3 = p.i3; i3 < m[3]; i3 += n[3])
            for (int64_t i2 = p.i2; i2 < m[2]; i2 += n[2])
                for (int64_t i1 = p.i1; i1 < m[1]; i1 += n[1])
                    for (int64_t i0 = p.i0; i0 < m[0]; i0 += n[0])
                        sum += f32_at(at(&g.src[0], i0, i1, i2, i3));
        *(float *)at_place(&g.dst, p) = sum;
    }
}
