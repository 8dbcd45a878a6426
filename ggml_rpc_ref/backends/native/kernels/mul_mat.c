/* MUL_MAT: dst[j][i] = the product of row i of src0 with row j of src1, for each pair of matrices.

   Block types: rows of src1 are rounded to eight bits first, as upstream does (phase 1), and multiplied as integers. A row with a
   NaN or an infinity is multiplied in float32, as the oracle does. F32, F16 and BF16 are multiplied in float32.

   With many rows of src1 and a variant that has tiles, sixteen rows of src0 are unpacked for all of them (`tile.h`); else each row
   of src0 is multiplied with one row of src1 after the other (`dot.h`). A unit is sixteen rows of src0 and all of src1. */
#include "dot.h"
#include "tile.h"

static int64_t blocks_of_rows(const struct geometry *g) { return (g->src[0].ne[1] + TILE_ROWS - 1) / TILE_ROWS; }
static int64_t blocks_of_columns(const struct geometry *g) { return (g->src[1].ne[1] + TILE_COLUMNS - 1) / TILE_COLUMNS; }
static bool is_tiled(const struct geometry *g)
{
    int from = tile_from(g->src[0].type);
    return from && g->src[1].ne[1] >= from;
}

/* One matrix of src1, and the matrix of src0 that it is multiplied with. */
struct matrices {
    uint8_t *weights, *rows, *dst;
};

static struct matrices matrices_of(const struct node *node, int64_t number)
{
    const struct layout *w = &node->of->src[0], *x = &node->of->src[1];
    int64_t i2 = number % x->ne[2], i3 = number / x->ne[2];
    return (struct matrices){
        row_at(w, node->src[0], 0, i2 / (x->ne[2] / w->ne[2]), i3 / (x->ne[3] / w->ne[3])),
        row_at(x, node->src[1], 0, i2, i3),
        row_at(&node->of->dst, node->dst, 0, i2, i3),
    };
}

/* ------------------------------------------------------------------------------------------------------- row by row */

static void prepare_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct layout *w = &node->of->src[0], *x = &node->of->src[1];
    int64_t size = activations_size(w->ne[0], block_types[w->type].group);
    for (int64_t row = first; row < last; row++)
        prepare_activations(w->type, x->type, row_of(x, node->src[1], row), x->ne[0], work->shared + row * size);
}

/* The product of a row of weights with a row of src1, both turned into float32. */
static float slow_product(const struct geometry *g, const uint8_t *weights, const uint8_t *row, const struct work *work)
{
    int64_t k = g->src[0].ne[0];
    float *w = (float *)work->own, *x = (float *)(work->own + aligned(4 * k));
    dequantise_row(g->src[0].type, weights, w, k);
    dequantise_row(g->src[1].type, row, x, k);
    return dot_f32(w, x, k);
}

/* One row of blocks with all prepared rows of a matrix. */
static void multiply_block_row(const struct geometry *g, const uint8_t *weights, const struct matrices *m, uint8_t *prepared,
                               int64_t i, const struct work *work)
{
    int64_t k = g->src[0].ne[0], size = activations_size(k, block_types[g->src[0].type].group);
    const struct block_type *type = &block_types[g->src[0].type];
    dot_function dot = dot_of(g->src[0].type);
    struct weights w = {(int8_t *)work->own, (float *)(work->own + aligned(k)), NULL};
    w.minimum = w.scale + k / type->group;
    if (!dot)
        unpack_levels(g->src[0].type, weights, k, (int8_t *)w.level, (float *)w.scale, (float *)w.minimum);
    struct work beside = *work;
    beside.own += aligned(k) + aligned(8 * (k / type->group));
    for (int64_t j = 0; j < g->src[1].ne[1]; j++) {
        struct activations a = activations_at(prepared + j * size, k, type->group);
        float *to = (float *)(m->dst + j * g->dst.nb[1]) + i;
        if (!*a.finite)
            *to = slow_product(g, weights, m->rows + j * g->src[1].nb[1], &beside);
        else
            *to = dot ? dot(weights, &a, k) : dot_levels(type, &w, &a, k);
    }
}

/* One row of floats with all rows of a matrix. */
static void multiply_float_row(const struct geometry *g, const uint8_t *weights, const struct matrices *m, int64_t i,
                               const struct work *work)
{
    int64_t k = g->src[0].ne[0];
    const float *w = (const float *)weights;
    if (!is_f32(&g->src[0])) {
        dequantise_row(g->src[0].type, weights, (float *)work->own, k);
        w = (const float *)work->own;
    }
    for (int64_t j = 0; j < g->src[1].ne[1]; j++) {
        const uint8_t *row = m->rows + j * g->src[1].nb[1];
        const float *x = (const float *)row;
        if (!is_f32(&g->src[1])) {
            float *widened = (float *)(work->own + aligned(4 * k));
            dequantise_row(g->src[1].type, row, widened, k);
            x = widened;
        }
        ((float *)(m->dst + j * g->dst.nb[1]))[i] = dot_f32(w, x, k);
    }
}

static void multiply_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t blocks = blocks_of_rows(g);
    bool is_block = type_block[g->src[0].type] > 1;
    for (int64_t unit = first; unit < last; unit++) {
        struct matrices m = matrices_of(node, unit / blocks);
        int64_t start = unit % blocks * TILE_ROWS, end = min64(start + TILE_ROWS, g->src[0].ne[1]);
        uint8_t *prepared = work->shared;
        if (is_block)
            prepared += unit / blocks * g->src[1].ne[1] * activations_size(g->src[0].ne[0], block_types[g->src[0].type].group);
        for (int64_t i = start; i < end; i++) {
            const uint8_t *weights = m.weights + i * g->src[0].nb[1];
            if (is_block)
                multiply_block_row(g, weights, &m, prepared, i, work);
            else
                multiply_float_row(g, weights, &m, i, work);
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------- in tiles */

static void lay_out_columns(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t blocks = blocks_of_columns(g), size = tile_columns_size(g->src[0].type, g->src[0].ne[0]);
    for (int64_t unit = first; unit < last; unit++) {
        struct matrices m = matrices_of(node, unit / blocks);
        int64_t start = unit % blocks * TILE_COLUMNS;
        int count = (int)min64(TILE_COLUMNS, g->src[1].ne[1] - start);
        uint8_t *row[TILE_COLUMNS];
        for (int j = 0; j < count; j++)
            row[j] = m.rows + (start + j) * g->src[1].nb[1];
        tile_columns(g->src[0].type, g->src[1].type, row, count, g->src[0].ne[0], work->own, work->shared + unit * size);
    }
}

static void store_tile(const struct geometry *g, const struct matrices *m, int64_t i, int64_t j, float (*tile)[TILE_ROWS])
{
    int64_t count = min64(TILE_ROWS, g->src[0].ne[1] - i);
    for (int64_t c = 0; c < min64(TILE_COLUMNS, g->src[1].ne[1] - j); c++)
        memcpy((float *)(m->dst + (j + c) * g->dst.nb[1]) + i, tile[c], (size_t)count * sizeof(float));
}

/* Put right what a tile has of columns that are not finite. */
static void redo_columns(const struct geometry *g, const struct matrices *m, int64_t i, int64_t j, uint32_t strange,
                         const struct work *work)
{
    for (; strange; strange &= strange - 1) {
        int64_t column = j + __builtin_ctz(strange);
        for (int64_t r = i; r < min64(i + TILE_ROWS, g->src[0].ne[1]); r++)
            ((float *)(m->dst + column * g->dst.nb[1]))[r] =
                slow_product(g, m->weights + r * g->src[0].nb[1], m->rows + column * g->src[1].nb[1], work);
    }
}

static void multiply_tiles(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int32_t type = g->src[0].type;
    int64_t k = g->src[0].ne[0], blocks = blocks_of_rows(g), columns = blocks_of_columns(g), size = tile_columns_size(type, k);
    struct work beside = *work;
    beside.own += aligned(tile_rows_size(type, k));
    for (int64_t unit = first; unit < last; unit++) {
        struct matrices m = matrices_of(node, unit / blocks);
        int64_t i = unit % blocks * TILE_ROWS;
        int count = (int)min64(TILE_ROWS, g->src[0].ne[1] - i);
        tile_rows(type, m.weights + i * g->src[0].nb[1], g->src[0].nb[1], count, k, work->own);
        for (int64_t block = 0; block < columns; block++) {
            const uint8_t *column = work->shared + (unit / blocks * columns + block) * size;
            float tile[TILE_COLUMNS][TILE_ROWS];
            tile_multiply(type, work->own, column, k, tile);
            store_tile(g, &m, i, block * TILE_COLUMNS, tile);
            redo_columns(g, &m, i, block * TILE_COLUMNS, tile_strange(type, k, column), &beside);
        }
    }
}

/* ---------------------------------------------------------------------------------------------------------- planning */

static bool plan(struct geometry *g)
{
    const struct layout *w = &g->src[0], *x = &g->src[1];
    if (!can_dequantise(w->type) || !can_dequantise(x->type) || !dense_rows(w) || !dense_rows(x) || w->ne[0] == 0)
        return false;
    int64_t k = w->ne[0], n = x->ne[1], matrices = x->ne[2] * x->ne[3];
    bool is_block = type_block[w->type] > 1;
    int64_t wide = 2 * aligned(4 * k);
    double products = (double)k * TILE_ROWS * (double)n;
    if (is_tiled(g)) {
        g->shared = matrices * blocks_of_columns(g) * tile_columns_size(w->type, k);
        g->own = aligned(tile_rows_size(w->type, k)) + wide + (is_block ? activations_size(k, block_types[w->type].group) : 0);
        add_phase(g, lay_out_columns, matrices * blocks_of_columns(g), k * 8.0);
        add_phase(g, multiply_tiles, matrices * blocks_of_rows(g), products / 60 + k * 8.0);
        return true;
    }
    g->own = wide;
    if (is_block) {
        int group = block_types[w->type].group;
        int64_t size = activations_size(k, group);
        g->shared = rows(x) * size;
        g->own += aligned(k) + aligned(8 * (k / group));
        add_phase(g, prepare_rows, rows(x), k * 0.5);
    }
    add_phase(g, multiply_rows, matrices * blocks_of_rows(g), products / 20);
    return true;
}

KERNEL(mul_mat, GGML_OP_MUL_MAT, plan);
