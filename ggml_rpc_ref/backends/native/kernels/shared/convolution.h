/* CONV_2D and CONV_3D: windows times kernels, sums in double precision. With an F16 kernel the images' elements are rounded to F16
   first. A tap on padding counts as 0, so that an infinity in the kernel makes NaN there. */
#pragma once
#include "vector.h"
#include "window.h"

/* A row of outputs: where its parts lie. */
struct row_of_outputs {
    struct axis width, height, depth;
    int64_t y, z;                            /* which row and plane of the outputs */
    int64_t channels;
    const uint8_t *image;                    /* the first element of the image's first channel */
    int64_t column_step, row_step, plane_step, channel_step;
    const uint8_t *kernel;                   /* contiguous: [channels][kernel depth][height][width] */
    int32_t kernel_type;
    uint8_t *to;
    int64_t to_step;
};

/* sum[o] += weight * the input under the tap. */
static inline void add_tap(const struct row_of_outputs *r, const uint8_t *row, int64_t tap, double weight, bool half, double *sum)
{
    for (int64_t o = 0; o < r->width.outputs; o++) {
        int64_t x = row ? covered(&r->width, o, tap) : -1;
        float value = x < 0 ? 0 : *(const f32 *)(row + x * r->column_step);
        sum[o] += weight * (half ? from_half(to_half(value)) : value);
    }
}

static inline void convolve_row(const struct row_of_outputs *r, double *sum)
{
    bool half = r->kernel_type == GGML_TYPE_F16;
    const uint8_t *weight = r->kernel;
    for (int64_t o = 0; o < r->width.outputs; o++)
        sum[o] = 0;
    for (int64_t c = 0; c < r->channels; c++)
        for (int64_t kd = 0; kd < r->depth.kernel; kd++)
            for (int64_t kh = 0; kh < r->height.kernel; kh++) {
                int64_t z = covered(&r->depth, r->z, kd), y = covered(&r->height, r->y, kh);
                const uint8_t *row = z < 0 || y < 0 ? NULL : r->image + c * r->channel_step + z * r->plane_step + y * r->row_step;
                for (int64_t kw = 0; kw < r->width.kernel; kw++, weight += type_size[r->kernel_type])
                    add_tap(r, row, kw, float_at(r->kernel_type, weight), half, sum);
            }
    for (int64_t o = 0; o < r->width.outputs; o++)
        *(f32 *)(r->to + o * r->to_step) = (float)sum[o];
}

/* Plan a convolution whose results have so many taps each. */
static inline bool plan_convolution(struct geometry *g, phase_function run, int64_t taps)
{
    g->own = 8 * g->dst.ne[0];
    return plan_rows(g, run, 1.5 * taps);
}
