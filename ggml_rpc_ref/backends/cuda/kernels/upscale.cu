/* UPSCALE: planes resized by interpolation or nearest neighbour, the two outer dimensions by nearest neighbour.

   A thread for each pixel of the result. Coordinates are computed in float32, which decides what pixel is taken; sums in double. */
#include "kernel.cuh"

enum { NEAREST = 0, BILINEAR = 1, BICUBIC = 2, ALIGN_CORNERS = 0x100, ANTIALIAS = 0x200 };

/* How a dimension is resized: result = source * factor; `offset` is where the centre of an element is. */
struct axis {
    int64_t size;
    float factor, offset;
};

DEVICE struct axis axis_of(const struct geometry *g, int dim)
{
    int64_t size = g->src[0].ne[dim], outputs = g->dst.ne[dim];
    bool aligned = upscale_mode(g) & ALIGN_CORNERS;
    struct axis a = {size, (float)outputs / (float)size, aligned ? 0.0f : 0.5f};
    if (aligned && dim < 2 && min64(size, outputs) > 1)
        a.factor = (float)(outputs - 1) / (float)(size - 1);
    return a;
}

DEVICE int64_t clamped(int64_t i, int64_t size) { return i < 0 ? 0 : i < size ? i : size - 1; }
DEVICE int64_t nearest(struct axis a, int64_t output) { return clamped((int64_t)((float)output / a.factor), a.size); }

/* The pixels of the source that make up one of the result, along a dimension: `count` of them from `first`, which may lie outside. */
struct taps {
    int64_t first, count, size;
    float x;          /* where the centre of the result's pixel is, or how far it is from the first pixel */
    float support;    /* half the width of the triangle of antialiasing */
    float offset;
};

DEVICE struct taps taps_of(struct axis a, int mode, int64_t output)
{
    float centre = ((float)output + a.offset) / a.factor, x = centre - a.offset;
    struct taps t = {(int64_t)floorf(x), 2, a.size, x, 0, a.offset};
    if (mode & ANTIALIAS) {
        t.x = centre;
        t.support = fmaxf(1, 1 / a.factor);
        t.first = max64((int64_t)(centre - t.support + a.offset), 0);
        t.count = min64((int64_t)(centre + t.support + a.offset), a.size) - t.first;
    } else if ((mode & 0xFF) == BICUBIC) {
        t.x = x - floorf(x);
        t.first -= 1;
        t.count = 4;
    } else {
        t.x = fminf(fmaxf(x - (float)clamped(t.first, a.size), 0), 1);
    }
    return t;
}

DEVICE double near_cubic(double t) { return ((-0.75 + 2) * t - (-0.75 + 3)) * t * t + 1; }
DEVICE double far_cubic(double t) { return ((-0.75 * t - 5 * -0.75) * t + 8 * -0.75) * t - 4 * -0.75; }

DEVICE double weight_of_tap(const struct taps *t, int64_t k)
{
    if (t->support > 0)
        return fmaxf(1 - fabsf(((float)(t->first + k) - t->x + t->offset) * (1 / t->support)), 0);
    if (t->count == 2)
        return k ? t->x : 1 - t->x;
    switch (k) {
    case 0: return far_cubic(t->x + 1);
    case 1: return near_cubic(t->x);
    case 2: return near_cubic(1 - t->x);
    default: return far_cubic(2 - t->x);
    }
}

DEVICE float interpolated(const struct geometry *g, const uint8_t *plane, struct taps rows, struct taps columns)
{
    double sum = 0, weights = 0;
    bool divide = rows.support > 0;
    for (int64_t c = 0; c < columns.count; c++) {
        double across = weight_of_tap(&columns, c), tall = 0, height = 0;
        if (divide && across == 0) /* what is under the edge of a triangle may be NaN */
            continue;
        for (int64_t r = 0; r < rows.count; r++) {
            double down = weight_of_tap(&rows, r);
            if (divide && down == 0)
                continue;
            int64_t i0 = clamped(columns.first + c, columns.size), i1 = clamped(rows.first + r, rows.size);
            tall += f32_at(plane + i0 * g->src[0].nb[0] + i1 * g->src[0].nb[1]) * down;
            height += down;
        }
        sum += tall * across;
        weights += height * across;
    }
    return (float)(!divide ? sum : weights > 0 ? sum / weights : 0);
}

KERNEL(upscale)
{
    int mode = upscale_mode(&g);
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        const uint8_t *plane = at(&g.src[0], 0, 0, nearest(axis_of(&g, 2), p.i2), nearest(axis_of(&g, 3), p.i3));
        struct axis width = axis_of(&g, 0), height = axis_of(&g, 1);
        uint8_t *to = at_place(&g.dst, p);
        if ((mode & 0xFF) == NEAREST)
            move(to, plane + nearest(width, p.i0) * g.src[0].nb[0] + nearest(height, p.i1) * g.src[0].nb[1], 4);
        else
            *(float *)to = interpolated(&g, plane, taps_of(height, mode, p.i1), taps_of(width, mode, p.i0));
    }
}
