/* IM2COL and IM2COL_3D: the window of every output as a row of the result. F32 or F16.

   An image of F32 that becomes windows of F16 is rounded first, in a phase of its own: each element is in many windows. */
#pragma once
#include "quantise.h"
#include "window.h"

/* One window: where the image's first channel begins, the outputs' place, and the axes. */
struct unrolled {
    struct axis width, height, depth;
    int64_t x, y, z, channels, size; /* of an element */
    const uint8_t *image;            /* NULL: all padding */
    int64_t row_step, plane_step, channel_step;
};

/* A row of taps that all lie on the image; a fixed number of bytes makes the copy one or two instructions. */
static inline __attribute__((always_inline)) uint8_t *copy_taps(uint8_t *dst, const uint8_t *from, int64_t bytes)
{
    memcpy(dst, from, (size_t)bytes);
    return dst + bytes;
}

static inline uint8_t *copy_tap_by_tap(const struct unrolled *u, uint8_t *dst, const uint8_t *row)
{
    for (int64_t kw = 0; kw < u->width.kernel; kw++, dst += u->size) {
        int64_t x = covered(&u->width, u->x, kw);
        if (!row || x < 0)
            memset(dst, 0, (size_t)u->size);
        else
            memcpy(dst, row + x * u->size, (size_t)u->size);
    }
    return dst;
}

static inline void unroll(const struct unrolled *u, uint8_t *dst)
{
    int64_t left = u->x * u->width.stride - u->width.padding, bytes = u->width.kernel * u->size;
    bool inside = u->width.dilation == 1 && left >= 0 && left + u->width.kernel <= u->width.size;
    for (int64_t c = 0; c < u->channels; c++)
        for (int64_t kd = 0; kd < u->depth.kernel; kd++)
            for (int64_t kh = 0; kh < u->height.kernel; kh++) {
                int64_t z = covered(&u->depth, u->z, kd), y = covered(&u->height, u->y, kh);
                if (!u->image || z < 0 || y < 0) {
                    memset(dst, 0, (size_t)bytes);
                    dst += bytes;
                    continue;
                }
                const uint8_t *row = u->image + c * u->channel_step + z * u->plane_step + y * u->row_step;
                if (!inside)
                    dst = copy_tap_by_tap(u, dst, row);
                else if (bytes == 12)
                    dst = copy_taps(dst, row + left * u->size, 12);
                else if (bytes == 6)
                    dst = copy_taps(dst, row + left * u->size, 6);
                else
                    dst = copy_taps(dst, row + left * u->size, bytes);
            }
}

static inline bool is_rounded(const struct geometry *g) { return g->src[1].type != g->dst.type; }

/* The images as they are unrolled: src1, or what `round_rows` has made of it. */
static inline struct layout unrolled_layout(const struct geometry *g)
{
    struct layout l = g->src[1];
    if (is_rounded(g)) {
        l.type = g->dst.type;
        l.nb[0] = type_size[l.type];
        for (int dim = 1; dim < 4; dim++)
            l.nb[dim] = l.nb[dim - 1] * l.ne[dim - 1];
    }
    return l;
}

static inline uint8_t *unrolled_images(const struct node *node, const struct work *work)
{
    return is_rounded(node->of) ? work->shared : node->src[1];
}

static void round_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct layout *from = &node->of->src[1], to = unrolled_layout(node->of);
    for (int64_t row = first; row < last; row++)
        quantise_row(to.type, (const float *)row_of(from, node->src[1], row), row_of(&to, work->shared, row), to.ne[0]);
}

static inline bool plan_unrolling(struct geometry *g, phase_function run)
{
    if (is_rounded(g)) {
        g->shared = elements(&g->src[1]) * type_size[g->dst.type];
        add_phase(g, round_rows, rows(&g->src[1]), g->src[1].ne[0] * 0.5);
    }
    return plan_rows(g, run, 1);
}
