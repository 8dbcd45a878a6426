/* WIN_UNPART: the windows of WIN_PART joined into an image again, without what reached beyond it. */
#include "kernel.cuh"

KERNEL(win_unpart)
{
    int64_t w = win_unpart_w(&g), across = (g.dst.ne[1] + w - 1) / w;
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        move(at_place(&g.dst, p), at(&g.src[0], p.i0, p.i1 % w, p.i2 % w, p.i2 / w * across + p.i1 / w), 4);
    }
}
