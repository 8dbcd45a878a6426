/* WIN_PART: an image cut into square windows, with zeros where the last ones reach beyond it. */
#include "kernel.cuh"

KERNEL(win_part)
{
    int64_t w = win_part_w(&g), across = win_part_npx(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t x = p.i3 % across * w + p.i1, y = p.i3 / across * w + p.i2;
        uint8_t *to = at_place(&g.dst, p);
        if (x < g.src[0].ne[1] && y < g.src[0].ne[2])
            move(to, at(&g.src[0], p.i0, x, y, 0), 4);
        else
            *(float *)to = 0;
    }
}
