/* See matmul.h. */
#include "matmul.h"

static bool is_block(const struct product *p) { return type_block[p->weights] > 1; }
static int group_of(const struct product *p) { return block_types[p->weights].group; }

struct product product_of(const struct geometry *g, int64_t n)
{
    int32_t type = g->src[0].type;
    int from = tile_from(type);
    return (struct product){type, g->src[1].type, g->src[0].ne[0], from && n >= from};
}

bool can_multiply(const struct geometry *g)
{
    const struct layout *w = &g->src[0], *x = &g->src[1];
    return can_dequantise(w->type) && can_dequantise(x->type) && dense_rows(w) && dense_rows(x) && w->ne[0] > 0;
}

int64_t prepared_size(const struct product *p)
{
    if (p->tiled)
        return tile_columns_size(p->weights, p->k);
    return is_block(p) ? TILE_COLUMNS * activations_size(p->k, group_of(p)) : 0;
}

int64_t multiply_scratch(const struct product *p)
{
    int64_t wide = 2 * aligned(4 * p->k);
    if (p->tiled)
        return aligned(tile_rows_size(p->weights, p->k)) + wide + (is_block(p) ? activations_size(p->k, group_of(p)) : 0);
    return wide + (is_block(p) ? aligned(p->k) + aligned(8 * (p->k / group_of(p))) : 0);
}

void prepare_batch(const struct product *p, const struct batch *b, uint8_t *own, uint8_t *to)
{
    if (p->tiled)
        tile_columns(p->weights, p->type, b->row, b->count, p->k, own, to);
    else if (is_block(p))
        for (int j = 0; j < b->count; j++)
            prepare_activations(p->weights, p->type, b->row[j], p->k, to + j * activations_size(p->k, group_of(p)));
}

void unpack_weights(const struct product *p, const uint8_t *weights, int64_t stride, int count, uint8_t *own)
{
    if (p->tiled)
        tile_rows(p->weights, weights, stride, count, p->k, own);
}

/* The product of a row of weights with a row of src1, both turned into float32. */
static float slow_product(const struct product *p, const uint8_t *weights, const uint8_t *row, uint8_t *own)
{
    float *w = (float *)own, *x = (float *)(own + aligned(4 * p->k));
    dequantise_row(p->weights, weights, w, p->k);
    dequantise_row(p->type, row, x, p->k);
    return dot_f32(w, x, p->k);
}

/* One row of blocks with a batch. */
static void multiply_blocks(const struct product *p, const uint8_t *weights, int64_t i, const struct batch *b,
                            const uint8_t *prepared, uint8_t *own)
{
    const struct block_type *type = &block_types[p->weights];
    dot_function dot = dot_of(p->weights);
    float *scale = (float *)(own + aligned(p->k));
    struct weights w = {(int8_t *)own, scale, scale + p->k / type->group};
    if (!dot)
        unpack_levels(p->weights, weights, p->k, (int8_t *)own, scale, scale + p->k / type->group);
    for (int j = 0; j < b->count; j++) {
        struct activations a = activations_at((uint8_t *)prepared + j * activations_size(p->k, type->group), p->k, type->group);
        if (!*a.ready)
            b->to[j][i] = slow_product(p, weights, b->row[j], own + aligned(p->k) + aligned(8 * (p->k / type->group)));
        else
            b->to[j][i] = dot ? dot(weights, &a, p->k) : dot_levels(type, &w, &a, p->k);
    }
}

void multiply_packed_rows(const struct product *p, const uint8_t *packed, const uint8_t *weights, int64_t stride, int64_t i,
                          const struct batch *b, const uint8_t *prepared, uint8_t *own)
{
    int group = group_of(p);
    for (int j = 0; j < b->count; j++) {
        struct activations a = activations_at((uint8_t *)prepared + j * activations_size(p->k, group), p->k, group);
        if (*a.ready)
            multiply_packed(p->weights, packed, &a, p->k, b->to[j] + i);
        else
            for (int r = 0; r < PACKED_ROWS; r++)
                b->to[j][i + r] = slow_product(p, weights + r * stride, b->row[j], own);
    }
}

/* One row of floats with a batch. */
static void multiply_floats(const struct product *p, const uint8_t *weights, int64_t i, const struct batch *b, uint8_t *own)
{
    for (int j = 0; j < b->count; j++) {
        const float *x = (const float *)b->row[j];
        if (p->type != GGML_TYPE_F32) {
            dequantise_row(p->type, b->row[j], (float *)own, p->k);
            x = (const float *)own;
        }
        b->to[j][i] = dot_floats(x, weights, p->weights, p->k);
    }
}

/* Sixteen rows with a batch; columns that are not finite are computed again. */
static void multiply_tile(const struct product *p, const uint8_t *weights, int64_t stride, int count, int64_t i,
                          const struct batch *b, const uint8_t *prepared, uint8_t *own)
{
    float tile[TILE_COLUMNS][TILE_ROWS];
    tile_multiply(p->weights, own, prepared, p->k, tile);
    for (int j = 0; j < b->count; j++)
        memcpy(b->to[j] + i, tile[j], (size_t)count * sizeof(float));
    for (uint32_t strange = tile_strange(p->weights, p->k, prepared); strange; strange &= strange - 1) {
        int j = __builtin_ctz(strange);
        for (int r = 0; r < count; r++)
            b->to[j][i + r] = slow_product(p, weights + r * stride, b->row[j], own + aligned(tile_rows_size(p->weights, p->k)));
    }
}

void multiply_batch(const struct product *p, const uint8_t *weights, int64_t stride, int count, int64_t i, const struct batch *b,
                    const uint8_t *prepared, uint8_t *own)
{
    if (p->tiled) {
        multiply_tile(p, weights, stride, count, i, b, prepared, own);
        return;
    }
    for (int r = 0; r < count; r++) {
        if (is_block(p))
            multiply_blocks(p, weights + r * stride, i + r, b, prepared, own);
        else
            multiply_floats(p, weights + r * stride, i + r, b, own);
    }
}

int64_t bytes_packed(const struct geometry *g)
{
    const struct layout *w = &g->src[0], *x = &g->src[1];
    if (g->op != GGML_OP_MUL_MAT || w->ne[2] * w->ne[3] * x->ne[2] * x->ne[3] != 1 || product_of(g, x->ne[1]).tiled)
        return 0;
    return w->nb[1] == row_size(w->type, w->ne[0]) ? w->ne[1] / PACKED_ROWS * packed_size(w->type, w->ne[0]) : 0;
}

void pack_groups(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *w = &node->of->src[0];
    int64_t size = packed_size(w->type, w->ne[0]), rows = PACKED_ROWS * w->nb[1];
    for (int64_t group = first; group < last; group++)
        pack_rows(w->type, node->src[0] + group * rows, w->nb[1], w->ne[0], node->dst + group * size);
}
