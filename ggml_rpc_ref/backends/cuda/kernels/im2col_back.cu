/* IM2COL_BACK: every pixel sums the gradients of its copies, tap by tap; a thread for each pixel. */
#include "window.cuh"

KERNEL(im2col_back)
{
    const struct operand *gradient = &g.src[0], *kernel = &g.src[1];
    bool plane = im2col_back_is_2D(&g) == 1;
    struct window width = WINDOW(im2col_back, 0, &g.dst, kernel), height = WINDOW(im2col_back, 1, &g.dst, kernel);
    if (!plane) {
        struct window point = {1, 1, 1, 0, 1};
        height = point;
    }
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        int64_t y = plane ? p.i1 : 0, channel = plane ? p.i2 : p.i1, image = plane ? p.i3 : p.i2;
        float sum = 0;
        for (int64_t kh = 0; kh < height.kernel; kh++) {
            int64_t row = output_at(&height, y, kh, plane ? gradient->ne[2] : 1);
            for (int64_t kw = 0; row >= 0 && kw < width.kernel; kw++) {
                int64_t column = output_at(&width, p.i0, kw, gradient->ne[1]), tap = (channel * height.kernel + kh) * width.kernel + kw;
                if (column >= 0)
                    sum += f32_at(plane ? at(gradient, tap, column, row, image) : at(gradient, tap, column, image, 0));
            }
        }
        *(float *)at_place(&g.dst, p) = sum;
    }
}
