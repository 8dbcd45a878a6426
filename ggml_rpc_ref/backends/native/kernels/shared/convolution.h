/* CONV_2D and CONV_3D: windows times kernels as a product of matrices, in float32. With an F16 kernel the images' elements are
   rounded to F16 first. A tap on padding counts as 0, so that an infinity in the kernel makes NaN there.

   A unit has some positions of an image and some outputs. It lays out a slab of the positions' windows, few enough taps at a time
   for the caches, and multiplies it with each output's kernel: four outputs and two vectors of positions stay in registers. */
#pragma once
#include "rounded.h"
#include "window.h"

#define POSITIONS (2 * LANES)    /* of a tile */
#define TILES (64 / POSITIONS)   /* of a unit */
#define SLAB 128                 /* taps */
#define OUTPUTS 4                /* multiplied at a time */
#define MOST_OUTPUTS 128         /* of a unit */

struct convolution {
    struct axis width, height, depth;
    int64_t channels, outputs, images;
    int64_t column_step, row_step, plane_step, channel_step, image_step;                /* of the images */
    int64_t to_column_step, to_row_step, to_plane_step, to_output_step, to_image_step;  /* of the results */
    int32_t kernel_type;                                                                /* contiguous: [outputs][taps] */
};

/* Neighbours in a row of results, which lie in one tile. */
struct stretch {
    int64_t x, y, z, count, tile, place;
};

/* The scratch memory of a thread. */
struct slab {
    float tap[TILES][SLAB][POSITIONS];
    float sum[MOST_OUTPUTS][TILES][POSITIONS];
    float weight[OUTPUTS][SLAB];
    struct stretch stretch[TILES * POSITIONS];
    int stretches;
};

static inline int64_t taps_of(const struct convolution *c)
{
    return c->channels * c->depth.kernel * c->height.kernel * c->width.kernel;
}

static inline int64_t positions_of(const struct convolution *c) { return c->width.outputs * c->height.outputs * c->depth.outputs; }
static inline int64_t position_groups(const struct convolution *c) { return parts_of(positions_of(c), TILES * POSITIONS); }
static inline int64_t output_groups(const struct convolution *c) { return parts_of(c->outputs, MOST_OUTPUTS); }

static void find_stretches(const struct convolution *c, int64_t first, struct slab *s)
{
    int64_t end = min64(positions_of(c) - first, TILES * POSITIONS);
    s->stretches = 0;
    for (int64_t i = 0, count; i < end; i += count) {
        int64_t p = first + i, x = p % c->width.outputs, row = p / c->width.outputs;
        count = min64(min64(c->width.outputs - x, POSITIONS - i % POSITIONS), end - i);
        s->stretch[s->stretches++] = (struct stretch){.x = x, .y = row % c->height.outputs, .z = row / c->height.outputs,
                                                      .count = count, .tile = i / POSITIONS, .place = i % POSITIONS};
    }
    if (end < TILES * POSITIONS)
        memset(s->tap, 0, sizeof s->tap); /* the others are multiplied too */
}

/* What a tap covers of a row of an image, or NULL, for neighbours from output x on. */
static inline void lay_out(const struct convolution *c, const uint8_t *row, int64_t tap, int64_t x, int64_t count, float *to)
{
    const struct axis *a = &c->width;
    int64_t input = x * a->stride + tap * a->dilation - a->padding;
    if (row && a->stride == 1 && c->column_step == 4 && input >= 0 && input + count <= a->size) {
        if (count == POSITIONS)
            memcpy(to, row + 4 * input, 4 * POSITIONS);
        else
            memcpy(to, row + 4 * input, (size_t)(4 * count));
        return;
    }
    for (int64_t i = 0; i < count; i++, input += a->stride)
        to[i] = row && input >= 0 && input < a->size ? *(const f32 *)(row + input * c->column_step) : 0;
}

/* Taps `first` to `first + count` of all positions. */
static void fill_slab(const struct convolution *c, const uint8_t *image, int64_t first, int64_t count, struct slab *s)
{
    int64_t kw = first % c->width.kernel, kh = first / c->width.kernel % c->height.kernel;
    int64_t kd = first / c->width.kernel / c->height.kernel % c->depth.kernel;
    const uint8_t *plane = image + first / c->width.kernel / c->height.kernel / c->depth.kernel * c->channel_step;
    for (int64_t k = 0; k < count; k++) {
        for (int i = 0; i < s->stretches; i++) {
            const struct stretch *t = &s->stretch[i];
            int64_t z = covered(&c->depth, t->z, kd), y = covered(&c->height, t->y, kh);
            const uint8_t *row = z < 0 || y < 0 ? NULL : plane + z * c->plane_step + y * c->row_step;
            lay_out(c, row, kw, t->x, t->count, &s->tap[t->tile][k][t->place]);
        }
        if (++kw == c->width.kernel) {
            kw = 0;
            if (++kh == c->height.kernel) {
                kh = 0;
                if (++kd == c->depth.kernel) {
                    kd = 0;
                    plane += c->channel_step;
                }
            }
        }
    }
    for (int t = 0; t < TILES && c->kernel_type == GGML_TYPE_F16; t++)
        for (int64_t i = 0; i < count * POSITIONS; i += LANES)
            store16(s->tap[t][0] + i, rounded_to_half(load16(s->tap[t][0] + i)));
}

/* Add n taps of a tile times four outputs' weights to their sums. */
static inline void multiply_slab(float (*tap)[POSITIONS], const f32 *const *weight, int64_t n, float (*sum)[TILES][POSITIONS])
{
    f32x16 low[OUTPUTS], high[OUTPUTS];
    for (int j = 0; j < OUTPUTS; j++) {
        low[j] = load16(sum[j][0]);
        high[j] = load16(sum[j][0] + LANES);
    }
    for (int64_t k = 0; k < n; k++) {
        f32x16 first = load16(tap[k]), second = load16(tap[k] + LANES);
        _Pragma("GCC unroll 4") for (int j = 0; j < OUTPUTS; j++)
        {
            f32x16 w = splat(weight[j][k]);
            low[j] = fma16(first, w, low[j]);
            high[j] = fma16(second, w, high[j]);
        }
    }
    for (int j = 0; j < OUTPUTS; j++) {
        store16(sum[j][0], low[j]);
        store16(sum[j][0] + LANES, high[j]);
    }
}

/* Four outputs' weights of a slab, from output o on; where there are fewer, the last one's again. */
static void weights_at(const struct convolution *c, const uint8_t *kernel, int64_t o, int64_t first, int64_t count, struct slab *s,
                       const f32 **weight)
{
    for (int j = 0; j < OUTPUTS; j++) {
        int64_t at = min64(o + j, c->outputs - 1) * taps_of(c) + first;
        weight[j] = (const f32 *)(kernel + 4 * at);
        if (c->kernel_type == GGML_TYPE_F16) {
            weight[j] = s->weight[j];
            int64_t k = 0;
            for (; k + LANES <= count; k += LANES)
                store16(s->weight[j] + k, load_f16(kernel + 2 * (at + k)));
            for (; k < count; k++)
                s->weight[j][k] = from_half(*(const u16 *)(kernel + 2 * (at + k)));
        }
    }
}

static void convolve_unit(const struct convolution *c, const uint8_t *kernel, const uint8_t *images, uint8_t *results, int64_t unit,
                          struct slab *s)
{
    int64_t group = unit % output_groups(c), rest = unit / output_groups(c);
    int64_t image = rest / position_groups(c), begin = group * MOST_OUTPUTS, end = min64(begin + MOST_OUTPUTS, c->outputs);
    find_stretches(c, rest % position_groups(c) * TILES * POSITIONS, s);
    memset(s->sum, 0, (size_t)min64(parts_of(end - begin, OUTPUTS) * OUTPUTS, MOST_OUTPUTS) * sizeof *s->sum);
    for (int64_t first = 0; first < taps_of(c); first += SLAB) {
        int64_t count = min64(SLAB, taps_of(c) - first);
        const f32 *weight[OUTPUTS];
        fill_slab(c, images + image * c->image_step, first, count, s);
        for (int64_t o = begin; o < end; o += OUTPUTS) {
            weights_at(c, kernel, o, first, count, s, weight);
            for (int t = 0; t < TILES; t++)
                multiply_slab(s->tap[t], weight, count, (float(*)[TILES][POSITIONS])s->sum[o - begin][t]);
        }
    }
    for (int i = 0; i < s->stretches; i++) {
        const struct stretch *t = &s->stretch[i];
        uint8_t *to = results + image * c->to_image_step + t->z * c->to_plane_step + t->y * c->to_row_step + t->x * c->to_column_step;
        for (int64_t o = begin; o < end; o++)
            for (int64_t x = 0; x < t->count; x++)
                *(f32 *)(to + o * c->to_output_step + x * c->to_column_step) = s->sum[o - begin][t->tile][t->place + x];
    }
}

/* Plan a convolution; a unit multiplies this many taps. */
static inline bool plan_convolution(struct geometry *g, phase_function run, const struct convolution *c)
{
    double products = (double)taps_of(c) * TILES * POSITIONS * (double)min64(c->outputs, MOST_OUTPUTS);
    g->own = (int64_t)sizeof(struct slab);
    add_phase(g, run, c->images * position_groups(c) * output_groups(c), 200 + products / LANES);
    return true;
}
