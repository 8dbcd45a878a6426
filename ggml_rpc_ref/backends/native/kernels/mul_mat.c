/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   Phase 1 prepares eight rows of src1 in each unit, phase 2 multiplies sixteen rows of src0 with all of a matrix of src1; from packed
   rows where the node has them. */
#include "matmul.h"

static int64_t blocks_of_rows(const struct geometry *g) { return (g->src[0].ne[1] + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t batches(const struct geometry *g) { return (g->src[1].ne[1] + TILE_COLUMNS - 1) / TILE_COLUMNS; }

/* Eight rows of a matrix of src1, from row j on. */
static struct batch batch_at(const struct node *node, int64_t matrix, int64_t j)
{
    const struct layout *x = &node->of->src[1], *dst = &node->of->dst;
    int64_t i2 = matrix % x->ne[2], i3 = matrix / x->ne[2];
    struct batch b = {.count = (int)min64(TILE_COLUMNS, x->ne[1] - j)};
    for (int c = 0; c < b.count; c++) {
        b.row[c] = row_at(x, node->src[1], j + c, i2, i3);
        b.to[c] = (float *)row_at(dst, node->dst, j + c, i2, i3);
    }
    return b;
}

static void prepare(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    struct product p = product_of(g, g->src[1].ne[1]);
    for (int64_t unit = first; unit < last; unit++) {
        struct batch b = batch_at(node, unit / batches(g), unit % batches(g) * TILE_COLUMNS);
        prepare_batch(&p, &b, work->own, work->shared + unit * prepared_size(&p));
    }
}

/* Rows i to i + count of a single matrix; those after the last group are not packed. */
static void multiply_from_packed(const struct node *node, const struct product *p, int64_t i, int count, const struct work *work)
{
    const struct layout *w = &node->of->src[0];
    for (int64_t batch = 0; batch < batches(node->of); batch++) {
        struct batch b = batch_at(node, 0, batch * TILE_COLUMNS);
        const uint8_t *prepared = work->shared + batch * prepared_size(p);
        int done = 0;
        for (; done + PACKED_ROWS <= count; done += PACKED_ROWS) {
            const uint8_t *packed = node->packed + (i + done) / PACKED_ROWS * packed_size(p->weights, p->k);
            multiply_packed_rows(p, packed, node->src[0] + (i + done) * w->nb[1], w->nb[1], i + done, &b, prepared, work->own);
        }
        if (done < count)
            multiply_batch(p, node->src[0] + (i + done) * w->nb[1], w->nb[1], count - done, i + done, &b, prepared, work->own);
    }
}

static void multiply(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *w = &g->src[0], *x = &g->src[1];
    struct product p = product_of(g, x->ne[1]);
    for (int64_t unit = first; unit < last; unit++) {
        int64_t matrix = unit / blocks_of_rows(g), i = unit % blocks_of_rows(g) * TILE_ROWS;
        int64_t i2 = matrix % x->ne[2] / (x->ne[2] / w->ne[2]), i3 = matrix / x->ne[2] / (x->ne[3] / w->ne[3]);
        const uint8_t *weights = row_at(w, node->src[0], i, i2, i3);
        int count = (int)min64(TILE_ROWS, w->ne[1] - i);
        unpack_weights(&p, weights, w->nb[1], count, work->own);
        if (node->packed) {
            multiply_from_packed(node, &p, i, count, work);
            continue;
        }
        for (int64_t batch = 0; batch < batches(g); batch++) {
            struct batch b = batch_at(node, matrix, batch * TILE_COLUMNS);
            const uint8_t *prepared = work->shared + (matrix * batches(g) + batch) * prepared_size(&p);
            multiply_batch(&p, weights, w->nb[1], count, i, &b, prepared, work->own);
        }
    }
}

static bool plan(struct geometry *g)
{
    if (!can_multiply(g))
        return false;
    int64_t n = g->src[1].ne[1], matrices = g->src[1].ne[2] * g->src[1].ne[3];
    struct product p = product_of(g, n);
    double products = (double)p.k * TILE_ROWS * (double)n;
    g->shared = matrices * batches(g) * prepared_size(&p);
    g->own = multiply_scratch(&p);
    if (g->shared)
        add_phase(g, prepare, matrices * batches(g), (double)p.k * (double)min64(n, TILE_COLUMNS));
    add_phase(g, multiply, matrices * blocks_of_rows(g), p.tiled ? products / 60 + p.k * 8.0 : products / 20);
    return true;
}

KERNEL(mul_mat, GGML_OP_MUL_MAT, plan);
