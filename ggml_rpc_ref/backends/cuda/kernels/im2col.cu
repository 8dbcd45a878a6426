/* IM2COL: the window of every output of a convolution laid out as a row; a thread for each element of it.

   In one dimension the image has no height, and a p1 other than 0 puts every window on padding. */
#include "window.cuh"

KERNEL(im2col)
{
    const struct operand *kernel = &g.src[0], *image = &g.src[1];
    bool plane = im2col_is_2D(&g) == 1;
    struct window width = WINDOW(im2col, 0, image, kernel), height = WINDOW(im2col, 1, image, kernel);
    if (!plane) {
        struct window point = {1, 1, 1, im2col_p1(&g), 1};
        height = point;
    }
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t kw = p.i0 % width.kernel, kh = p.i0 / width.kernel % height.kernel, channel = p.i0 / (width.kernel * height.kernel);
        int64_t x, y;
        bool inside = covers(&width, p.i1, kw, &x) & covers(&height, plane ? p.i2 : 0, kh, &y);
        const uint8_t *from = plane ? at(image, x, y, channel, p.i3) : at(image, x, channel, p.i2, 0);
        store(g.dst.type, at_place(&g.dst, p), inside ? load(image->type, from) : 0);
    }
}
