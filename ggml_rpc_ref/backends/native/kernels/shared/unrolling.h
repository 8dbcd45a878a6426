/* IM2COL and IM2COL_3D: the window of every output as a row of the result. F32 or F16. */
#pragma once
#include "window.h"

/* One window: where the image's first channel begins, the outputs' place, and the axes. */
struct unrolled {
    struct axis width, height, depth;
    int64_t x, y, z, channels;
    const uint8_t *image; /* NULL: all padding */
    int64_t row_step, plane_step, channel_step;
    int32_t from, to; /* types */
};

static inline void unroll(const struct unrolled *u, uint8_t *dst)
{
    int64_t size = type_size[u->from];
    for (int64_t c = 0; c < u->channels; c++)
        for (int64_t kd = 0; kd < u->depth.kernel; kd++)
            for (int64_t kh = 0; kh < u->height.kernel; kh++) {
                int64_t z = covered(&u->depth, u->z, kd), y = covered(&u->height, u->y, kh);
                const uint8_t *row = u->image + c * u->channel_step + z * u->plane_step + y * u->row_step;
                for (int64_t kw = 0; kw < u->width.kernel; kw++, dst += type_size[u->to]) {
                    int64_t x = covered(&u->width, u->x, kw);
                    if (!u->image || z < 0 || y < 0 || x < 0)
                        memset(dst, 0, (size_t)type_size[u->to]);
                    else if (u->from == u->to)
                        memcpy(dst, row + x * size, (size_t)size);
                    else
                        *(u16 *)dst = to_half(*(const f32 *)(row + x * size));
                }
            }
}
