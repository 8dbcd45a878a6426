/* IM2COL_3D: the window of every output of a volume's convolution laid out as a row; a thread for each element of it. */
#include "window.cuh"

KERNEL(im2col_3d)
{
    const struct operand *kernel = &g.src[0], *volume = &g.src[1];
    struct window width = WINDOW(im2col_3d, 0, volume, kernel), height = WINDOW(im2col_3d, 1, volume, kernel);
    struct window depth = WINDOW(im2col_3d, 2, volume, kernel);
    int64_t channels = im2col_3d_IC(&g), outputs = g.dst.ne[3] / (volume->ne[3] / channels);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t taps[4] = {width.kernel, height.kernel, depth.kernel, channels}, x, y, z;
        struct place tap = place_in(taps, p.i0);
        bool inside = covers(&width, p.i1, tap.i0, &x) & covers(&height, p.i2, tap.i1, &y);
        inside &= covers(&depth, p.i3 % outputs, tap.i2, &z);
        const uint8_t *from = at(volume, x, y, z, p.i3 / outputs * channels + tap.i3);
        store(g.dst.type, at_place(&g.dst, p), inside ? f32_at(from) : 0);
    }
}
