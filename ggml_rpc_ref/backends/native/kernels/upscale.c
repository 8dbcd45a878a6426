/* UPSCALE: planes resized by interpolation or nearest neighbour, the two outer dimensions by nearest neighbour.

   Coordinates are computed in float32, which decides what pixel is taken; sums are in double precision. Phase 1 lists the pixels
   that make up each column of the result. */
#include "elements.h"

enum { NEAREST = 0, BILINEAR = 1, BICUBIC = 2, ALIGN_CORNERS = 0x100, ANTIALIAS = 0x200 };

/* How a dimension is resized: result = source * factor; `offset` is where the centre of an element is. */
struct scale {
    int64_t size;
    float factor, offset;
};

static struct scale scale_of(const struct geometry *g, int dim)
{
    int64_t size = g->src[0].ne[dim], outputs = g->dst.ne[dim];
    bool aligned = upscale_mode(g) & ALIGN_CORNERS;
    float factor = aligned && dim < 2 && min64(size, outputs) > 1 ? (float)(outputs - 1) / (float)(size - 1)
                                                                   : (float)outputs / (float)size;
    return (struct scale){size, factor, aligned ? 0.0f : 0.5f};
}

static int64_t clamped(int64_t i, int64_t size) { return i < 0 ? 0 : i < size ? i : size - 1; }

static int64_t nearest(const struct scale *s, int64_t output)
{
    return clamped((int64_t)((float)output / s->factor), s->size);
}

/* An element of the source, and how much of it. */
struct tap {
    int64_t index;
    double weight;
};

static double near_cubic(double t) { return ((-0.75 + 2) * t - (-0.75 + 3)) * t * t + 1; }
static double far_cubic(double t) { return ((-0.75 * t - 5 * -0.75) * t + 8 * -0.75) * t - 4 * -0.75; }

static int bilinear(const struct scale *s, int64_t output, struct tap *tap)
{
    float x = ((float)output + s->offset) / s->factor - s->offset;
    int64_t left = (int64_t)floorf(x), index = clamped(left, s->size);
    float part = fminf(fmaxf(x - (float)index, 0), 1);
    tap[0] = (struct tap){index, 1 - part};
    tap[1] = (struct tap){clamped(left + 1, s->size), part};
    return 2;
}

static int bicubic(const struct scale *s, int64_t output, struct tap *tap)
{
    float x = ((float)output + s->offset) / s->factor - s->offset, part = x - floorf(x);
    double weight[4] = {far_cubic(part + 1), near_cubic(part), near_cubic(1 - part), far_cubic(2 - part)};
    for (int k = 0; k < 4; k++)
        tap[k] = (struct tap){clamped((int64_t)floorf(x) + k - 1, s->size), weight[k]};
    return 4;
}

/* Pixels under a triangle as wide as the distance of two outputs; those of weight 0 are left out. */
static int antialiased(const struct scale *s, int64_t output, struct tap *tap)
{
    float x = ((float)output + s->offset) / s->factor, support = fmaxf(1, 1 / s->factor);
    int64_t first = max64((int64_t)(x - support + s->offset), 0), end = min64((int64_t)(x + support + s->offset), s->size);
    int count = 0;
    for (int64_t i = first; i < end; i++) {
        float weight = 1 - fabsf(((float)i - x + s->offset) * (1 / support));
        if (weight > 0)
            tap[count++] = (struct tap){i, weight};
    }
    return count;
}

static int taps_of(const struct geometry *g, const struct scale *s, int64_t output, struct tap *tap)
{
    int mode = upscale_mode(g);
    if ((mode & 0xFF) == BICUBIC)
        return bicubic(s, output, tap);
    return mode & ANTIALIAS ? antialiased(s, output, tap) : bilinear(s, output, tap);
}

/* Most taps of an output along a dimension. */
static int64_t most_taps(const struct geometry *g, int dim)
{
    struct scale s = scale_of(g, dim);
    return upscale_mode(g) & ANTIALIAS ? min64(s.size, (int64_t)(2 * fmaxf(1, 1 / s.factor)) + 3) : 4;
}

/* The shared memory: for each column of the result how many taps it has, then its taps. */
static int64_t *count_of_column(const struct work *work, int64_t column) { return (int64_t *)work->shared + column; }
static struct tap *taps_of_column(const struct geometry *g, const struct work *work, int64_t column)
{
    return (struct tap *)(work->shared + 8 * g->dst.ne[0]) + column * most_taps(g, 0);
}

static void list_columns(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    struct scale width = scale_of(g, 0);
    for (int64_t column = first; column < last; column++)
        *count_of_column(work, column) = taps_of(g, &width, column, taps_of_column(g, work, column));
}

static double weight_of(const struct tap *tap, int64_t count)
{
    double total = 0;
    for (int64_t i = 0; i < count; i++)
        total += tap[i].weight;
    return total;
}

/* Each pixel of a row as the weighted sum of those in some rows. */
static void add_rows(const struct layout *l, const uint8_t *plane, const struct tap *row, int64_t rows, double *tall)
{
    for (int64_t x = 0; x < l->ne[0]; x++)
        tall[x] = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t x = 0; x < l->ne[0]; x++)
            tall[x] += f32_at(l, plane, x, row[r].index, 0, 0) * row[r].weight;
}

static double weighted_sum(const double *tall, const struct tap *column, int64_t columns)
{
    double total = 0;
    for (int64_t c = 0; c < columns; c++)
        total += tall[column[c].index] * column[c].weight;
    return total;
}

static void interpolate_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    struct scale height = scale_of(g, 1), depth = scale_of(g, 2), batch = scale_of(g, 3);
    double *tall = (double *)work->own;
    struct tap *row_tap = (struct tap *)(tall + g->src[0].ne[0]);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const uint8_t *plane = row_at(&g->src[0], node->src[0], 0, nearest(&depth, p.i2), nearest(&batch, p.i3));
        int count = taps_of(g, &height, p.i1, row_tap);
        double row_weight = weight_of(row_tap, count);
        add_rows(&g->src[0], plane, row_tap, count, tall);
        for (int64_t i = 0; i < g->dst.ne[0]; i++) {
            const struct tap *tap = taps_of_column(g, work, i);
            int64_t columns = *count_of_column(work, i);
            double value = weighted_sum(tall, tap, columns);
            if (upscale_mode(g) & ANTIALIAS) {
                double total = row_weight * weight_of(tap, columns);
                value = total > 0 ? value / total : 0;
            }
            *(f32 *)element(&g->dst, node->dst, i, p.i1, p.i2, p.i3) = (float)value;
        }
    }
}

static void pick_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t *column = (int64_t *)work->own;
    struct scale s[4] = {scale_of(g, 0), scale_of(g, 1), scale_of(g, 2), scale_of(g, 3)};
    for (int64_t i = 0; i < g->dst.ne[0]; i++)
        column[i] = nearest(&s[0], i) * g->src[0].nb[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        int64_t i1 = nearest(&s[1], p.i1), i2 = nearest(&s[2], p.i2), i3 = nearest(&s[3], p.i3);
        const uint8_t *from = row_at(&g->src[0], node->src[0], i1, i2, i3);
        uint8_t *to = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3);
        for (int64_t i = 0; i < g->dst.ne[0]; i++)
            *(f32 *)(to + i * g->dst.nb[0]) = *(const f32 *)(from + column[i]);
    }
}

static bool plan(struct geometry *g)
{
    if ((upscale_mode(g) & 0xFF) == NEAREST) {
        g->own = 8 * g->dst.ne[0];
        return plan_rows(g, pick_rows, 1);
    }
    g->shared = g->dst.ne[0] * (8 + (int64_t)sizeof(struct tap) * most_taps(g, 0));
    g->own = (int64_t)sizeof(struct tap) * most_taps(g, 1) + 8 * g->src[0].ne[0];
    add_phase(g, list_columns, g->dst.ne[0], 5.0 * most_taps(g, 0));
    return plan_rows(g, interpolate_rows, 1.5 * most_taps(g, 0) * most_taps(g, 1));
}

KERNEL(upscale, GGML_OP_UPSCALE, plan);
