/* ACC and SET: src0 copied to dst, but for a region that meets src1 element by element.

   A file defines MEET(x, y), of a word of src0's region and of src1, and includes this. Phase 1 computes the region in memory of its
   own, since dst may be src0 or src1; phase 2 copies src0; phase 3 writes the region. */
#include "elements.h"

/* Where the element of the region begins that meets the first one of a row of src1. */
static uint8_t *region_row(const struct geometry *g, uint8_t *data, struct place p)
{
    return data + REGION(offset)(g) + p.i1 * REGION(nb1)(g) + p.i2 * REGION(nb2)(g) + p.i3 * REGION(nb3)(g);
}

static void meet_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->src[1].ne[0];
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->src[1], row);
        const WORD *x = (const WORD *)region_row(g, node->src[0], p);
        const WORD *y = (const WORD *)row_at(&g->src[1], node->src[1], p.i1, p.i2, p.i3);
        WORD *met = (WORD *)work->shared + row * n;
        for (int64_t i = 0; i < n; i++)
            met[i] = MEET(x[i], y[i]);
    }
}

static void copy_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    for (int64_t row = first; row < last; row++)
        memmove(row_of(&g->dst, node->dst, row), row_of(&g->src[0], node->src[0], row), (size_t)(4 * g->dst.ne[0]));
}

static void write_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = g->src[1].ne[0];
    for (int64_t row = first; row < last; row++)
        memcpy(region_row(g, node->dst, place_of(&g->src[1], row)), (WORD *)work->shared + row * n, (size_t)(4 * n));
}

static bool plan(struct geometry *g)
{
    int64_t n = g->src[1].ne[0];
    g->shared = 4 * elements(&g->src[1]);
    add_phase(g, meet_rows, rows(&g->src[1]), n * 0.5);
    if (!REGION(inplace)(g))
        add_phase(g, copy_rows, rows(&g->dst), g->dst.ne[0] * 0.3);
    add_phase(g, write_rows, rows(&g->src[1]), n * 0.3);
    return true;
}
