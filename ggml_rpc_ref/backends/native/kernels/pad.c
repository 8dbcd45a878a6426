/* PAD: a border around a tensor, of zeros, or of the tensor itself once more (circular). F32. */
#include "copying.h"

/* In some versions the op has no parameters, and zeros come only behind. */
static bool only_behind(const struct geometry *g) { return has_change(g, CHANGE_PAD_BEFORE); }

static int64_t before(const struct geometry *g, int dim) { return only_behind(g) ? 0 : pad_padding(g, 2 * dim); }
static bool is_circular(const struct geometry *g) { return !only_behind(g) && pad_circular(g); }

/* The index of src0 that an index of dst shows along a dimension; -1: none, it lies in the border. */
static int64_t shown(const struct geometry *g, int dim, int64_t i)
{
    int64_t n = g->src[0].ne[dim], index = i - before(g, dim);
    if (is_circular(g))
        return (index % n + n) % n;
    return index >= 0 && index < n ? index : -1;
}

static void pad_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    const struct layout *from = &g->src[0], *to = &g->dst;
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(to, row);
        int64_t i1 = shown(g, 1, p.i1), i2 = shown(g, 2, p.i2), i3 = shown(g, 3, p.i3);
        uint8_t *dst = row_at(to, node->dst, p.i1, p.i2, p.i3);
        bool outside = i1 < 0 || i2 < 0 || i3 < 0;
        if (outside || !is_circular(g))
            memset(dst, 0, (size_t)(4 * to->ne[0]));
        if (outside)
            continue;
        const uint8_t *src = row_at(from, node->src[0], i1, i2, i3);
        if (is_circular(g)) {
            for (int64_t i = 0; i < to->ne[0]; i++)
                memcpy(dst + 4 * i, src + shown(g, 0, i) * from->nb[0], 4);
            continue;
        }
        int64_t begin = max64(before(g, 0), 0), end = min64(before(g, 0) + from->ne[0], to->ne[0]);
        if (begin < end)
            move_elements(dst + 4 * begin, 4, src + (begin - before(g, 0)) * from->nb[0], from->nb[0], end - begin, 4);
    }
}

static bool plan(struct geometry *g) { return plan_rows(g, pad_rows, is_circular(g) ? 3 : 0.5); }

KERNEL(pad, GGML_OP_PAD, plan);
