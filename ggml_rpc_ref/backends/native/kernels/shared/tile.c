/* See tile.h. */
#include "tile.h"

#if defined(__AVX2__) || defined(NEON)

#if defined(__AVX512VNNI__)
#include "tile_avx512.h"
#elif defined(NEON)
#include "tile_neon.h"
#else
#include "tile_avx2.h"
#endif

#if !defined(UNPACKS_AT_ONCE)
/* Blocks are unpacked one by one, whatever their type. */
static int64_t tile_at_once(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, const struct tile *t)
{
    (void)type, (void)rows, (void)stride, (void)count, (void)k, (void)t;
    return 0;
}

static int64_t tile_floats_at_once(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, float *to)
{
    (void)type, (void)rows, (void)stride, (void)count, (void)k, (void)to;
    return 0;
}
#endif

static bool is_block(int32_t type) { return type_block[type] > 1; }

int tile_from(int32_t type) { return is_block(type) ? tiles_from_blocks(type) : TILES_FROM_FLOATS; }

static struct columns columns_at(int32_t type, int64_t k, const uint8_t *memory)
{
    struct columns c = {0};
    uint8_t *m = (uint8_t *)memory;
    c.strange = (uint32_t *)m;
    m += 64;
    if (is_block(type)) {
        int group = block_types[type].group;
        c.level = (int8_t *)m;
        c.scale = (float *)(m += k * 8);
        c.start = (int32_t *)(m += k / 32 * 32);
        c.weighted = (float *)(m += k / group * 32);
    } else {
        c.values = (float *)m;
    }
    return c;
}

int64_t tile_columns_size(int32_t type, int64_t k)
{
    return aligned(64 + (is_block(type) ? k * 8 + k + 2 * (k / block_types[type].group * 32) : k * 32));
}

uint32_t tile_strange(int32_t type, int64_t k, const uint8_t *columns) { return *columns_at(type, k, columns).strange; }

static void lay_out_blocks(int32_t weights, const struct activations *a, int column, int64_t k, struct columns *c)
{
    int group = block_types[weights].group, offset = tile_offset(weights);
    uint32_t *levels = (uint32_t *)c->level;
    for (int64_t i = 0; i < k / 4; i++)
        memcpy(&levels[i * 8 + column], a->level + 4 * i, 4);
    for (int64_t i = 0; i < k / 32; i++)
        c->scale[i * 8 + column] = a->scale[i];
    for (int64_t g = 0; g < k / group; g++) {
        c->start[g * 8 + column] = -offset * a->sum[g];
        c->weighted[g * 8 + column] = a->weighted[g];
    }
}

void tile_columns(int32_t weights, int32_t type, uint8_t *const *row, int count, int64_t k, uint8_t *own, uint8_t *to)
{
    struct columns c = columns_at(weights, k, to);
    *c.strange = 0;
    if (count < TILE_COLUMNS)
        memset(to, 0, tile_columns_size(weights, k));
    for (int column = 0; column < count; column++) {
        if (!is_block(weights)) {
            if (type == GGML_TYPE_F32) {
                for (int64_t i = 0; i < k; i++)
                    memcpy(&c.values[i * 8 + column], row[column] + 4 * i, 4);
            } else {
                dequantise_row(type, row[column], (float *)own, k);
                for (int64_t i = 0; i < k; i++)
                    c.values[i * 8 + column] = ((float *)own)[i];
            }
            continue;
        }
        prepare_activations(weights, type, row[column], k, own);
        struct activations a = activations_at(own, k, block_types[weights].group);
        if (*a.ready)
            lay_out_blocks(weights, &a, column, k, &c);
        else
            *c.strange |= 1u << column;
    }
}

static struct tile tile_at(int32_t type, int64_t k, const uint8_t *memory)
{
    struct tile t = {0};
    if (is_block(type)) {
        t.level = (uint8_t *)memory;
        t.scale = (float *)(memory + k * 16);
        if (block_types[type].has_minimum)
            t.minimum = (float *)(memory + k * 16 + k / block_types[type].group * 64);
    } else {
        t.values = (float *)memory;
    }
    return t;
}

#define PART 64 /* elements of rows of floats that are turned at a time */
static int64_t padded(int64_t n) { return (n + 7) / 8 * 8; }

int64_t tile_rows_size(int32_t type, int64_t k)
{
    return is_block(type) ? k * 16 + k / block_types[type].group * 128 + MOST_BLOCK * 16
                          : padded(k) * 64 + PART * 4 * TILE_ROWS;
}

static void tile_blocks(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, struct tile t, int8_t *levels)
{
    const struct block_type *blocks = &block_types[type];
    int block = type_block[type], parts = block / blocks->group;
    for (int64_t i = tile_at_once(type, rows, stride, count, k, &t) / block; i < k / block; i++) {
        for (int r = 0; r < TILE_ROWS; r++) {
            struct unpacked unpacked;
            if (r < count)
                blocks->unpack(rows + r * stride + i * type_size[type], &unpacked);
            else
                memset(&unpacked, 0, sizeof unpacked);
            memcpy(levels + r * block, unpacked.level, block);
            for (int p = 0; p < parts; p++) {
                t.scale[(i * parts + p) * 16 + r] = unpacked.scale[p];
                if (t.minimum)
                    t.minimum[(i * parts + p) * 16 + r] = unpacked.minimum[p];
            }
        }
        interleave((uint8_t *)levels, block, block / 4, tile_offset(type), t.level + i * block * 16);
    }
}

void tile_rows(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, uint8_t *to)
{
    struct tile t = tile_at(type, k, to);
    if (is_block(type)) {
        tile_blocks(type, rows, stride, count, k, t, (int8_t *)to + tile_rows_size(type, k) - MOST_BLOCK * 16);
        return;
    }
    float(*part)[PART] = (float(*)[PART])(to + padded(k) * 64);
    memset(part, 0, sizeof *part * TILE_ROWS);
    int size = type_size[type];
    for (int64_t i = tile_floats_at_once(type, rows, stride, count, k, t.values); i < k; i += PART) {
        int64_t n = min64(PART, k - i);
        for (int r = 0; r < count; r++)
            dequantise_row(type, rows + r * stride + i * size, part[r], n);
        interleave((uint8_t *)part, sizeof *part, padded(n), 0, (uint8_t *)(t.values + i * 16));
    }
}

void tile_multiply(int32_t type, const uint8_t *rows, const uint8_t *columns, int64_t k, float (*to)[TILE_ROWS])
{
    struct tile t = tile_at(type, k, rows);
    struct columns c = columns_at(type, k, columns);
    multiply(type, &t, &c, k, to);
}

#else

int tile_from(int32_t type)
{
    (void)type;
    return 0;
}

int64_t tile_columns_size(int32_t type, int64_t k) { return type + k; }
void tile_columns(int32_t weights, int32_t type, uint8_t *const *row, int count, int64_t k, uint8_t *own, uint8_t *to)
{
    (void)weights, (void)type, (void)row, (void)count, (void)k, (void)own, (void)to;
}
uint32_t tile_strange(int32_t type, int64_t k, const uint8_t *columns) { return (uint32_t)(type + k + *columns); }
int64_t tile_rows_size(int32_t type, int64_t k) { return type + k; }
void tile_rows(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, uint8_t *to)
{
    (void)type, (void)rows, (void)stride, (void)count, (void)k, (void)to;
}
void tile_multiply(int32_t type, const uint8_t *rows, const uint8_t *columns, int64_t k, float (*to)[TILE_ROWS])
{
    (void)type, (void)rows, (void)columns, (void)k, (void)to;
}

#endif
