/* See tile.h. */
#include "tile.h"

#include "vector.h"

#if defined(__AVX512VNNI__)

static bool is_block(int32_t type) { return type_block[type] > 1; }

int tile_from(int32_t type) { return is_block(type) ? 4 : 8; }

/* ---- the columns: levels, then scales, starts and weighted sums, each eight at a time; a word of strange columns at the end */

struct columns {
    int8_t *level;      /* [k / 4][8][4] */
    float *scale;       /* [k / 32][8] */
    int32_t *start;     /* [k / group][8]: what the weights' offset of 128 adds, to be begun with */
    float *weighted;    /* [k / group][8] */
    uint32_t *strange;
    float *values;      /* instead of all these, for weights that are no blocks: [k][8] */
};

static struct columns columns_at(int32_t type, int64_t k, const uint8_t *memory)
{
    struct columns c = {0};
    uint8_t *m = (uint8_t *)memory;
    c.strange = (uint32_t *)m;
    m += 64;
    c.values = (float *)m;
    if (is_block(type)) {
        int group = block_types[type].group;
        c.level = (int8_t *)m;
        c.scale = (float *)(m += k * 8);
        c.start = (int32_t *)(m += k / 32 * 32);
        c.weighted = (float *)(m += k / group * 32);
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
    int group = block_types[weights].group;
    uint32_t *levels = (uint32_t *)c->level;
    for (int64_t i = 0; i < k / 4; i++)
        memcpy(&levels[i * 8 + column], a->level + 4 * i, 4);
    for (int64_t i = 0; i < k / 32; i++)
        c->scale[i * 8 + column] = a->scale[i];
    for (int64_t g = 0; g < k / group; g++) {
        c->start[g * 8 + column] = -128 * a->sum[g];
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
        if (*a.finite)
            lay_out_blocks(weights, &a, column, k, &c);
        else
            *c.strange |= 1u << column;
    }
}

/* ---- the rows: levels + 128, then scales and minimums, sixteen at a time */

struct tile {
    uint8_t *level;     /* [k / 4][16][4] */
    float *scale;       /* [k / group][16] */
    float *minimum;     /* [k / group][16] */
};

static struct tile tile_at(int32_t type, int64_t k, const uint8_t *memory)
{
    struct tile t = {(uint8_t *)memory, NULL, NULL};
    if (is_block(type)) {
        t.scale = (float *)(memory + k * 16);
        t.minimum = (float *)(memory + k * 16 + k / block_types[type].group * 64);
    }
    return t;
}

int64_t tile_rows_size(int32_t type, int64_t k)
{
    return is_block(type) ? k * 16 + k / block_types[type].group * 128 + MOST_BLOCK * 16 : k * 64 + 4 * aligned(k);
}

/* Transpose 16 x 16 words: to[i][r] = from[r][i]. */
static inline void transpose(const __m512i *from, __m512i *to)
{
    __m512i a[16], b[16];
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(from[2 * i], from[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(from[2 * i], from[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    /* b[4q + c] holds words c, c + 4, c + 8, c + 12 of rows 4q .. 4q + 3, one 128-bit lane each */
    for (int c = 0; c < 4; c++) {
        __m512i low01 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0x44), high01 = _mm512_shuffle_i32x4(b[c], b[4 + c], 0xEE);
        __m512i low23 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0x44), high23 = _mm512_shuffle_i32x4(b[8 + c], b[12 + c], 0xEE);
        to[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        to[4 + c] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
        to[8 + c] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        to[12 + c] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
}

/* n words of each of sixteen rows, which lie `stride` bytes apart, to [n][16], xor a word; n is a multiple of 8. */
static void interleave(const uint8_t *from, int64_t stride, int64_t n, uint32_t flip, uint8_t *to)
{
    for (int64_t i = 0; i < n; i += 16) {
        __m512i in[16], out[16];
        __mmask16 mask = n - i >= 16 ? 0xFFFF : 0x00FF;
        for (int r = 0; r < 16; r++)
            in[r] = _mm512_xor_si512(_mm512_maskz_loadu_epi32(mask, from + r * stride + 4 * i), _mm512_set1_epi32((int)flip));
        transpose(in, out);
        for (int c = 0; c < (n - i >= 16 ? 16 : 8); c++)
            _mm512_storeu_si512(to + (i + c) * 64, out[c]);
    }
}

static void tile_blocks(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, struct tile t, int8_t *levels)
{
    const struct block_type *blocks = &block_types[type];
    int block = type_block[type], parts = block / blocks->group;
    for (int64_t i = 0; i < k / block; i++) {
        for (int r = 0; r < TILE_ROWS; r++) {
            struct unpacked unpacked;
            if (r < count)
                blocks->unpack(rows + r * stride + i * type_size[type], &unpacked);
            else
                memset(&unpacked, 0, sizeof unpacked);
            memcpy(levels + r * block, unpacked.level, block);
            for (int p = 0; p < parts; p++) {
                t.scale[(i * parts + p) * 16 + r] = unpacked.scale[p];
                if (blocks->has_minimum)
                    t.minimum[(i * parts + p) * 16 + r] = unpacked.minimum[p];
            }
        }
        interleave((uint8_t *)levels, block, block / 4, 0x80808080, t.level + i * block * 16);
    }
}

void tile_rows(int32_t type, const uint8_t *rows, int64_t stride, int count, int64_t k, uint8_t *to)
{
    struct tile t = tile_at(type, k, to);
    if (is_block(type)) {
        tile_blocks(type, rows, stride, count, k, t, (int8_t *)to + tile_rows_size(type, k) - MOST_BLOCK * 16);
        return;
    }
    float *values = (float *)(to + k * 64), *out = (float *)to;
    for (int r = 0; r < TILE_ROWS; r++) {
        if (r < count)
            dequantise_row(type, rows + r * stride, values, k);
        else
            memset(values, 0, k * sizeof *values);
        for (int64_t i = 0; i < k; i++)
            out[i * 16 + r] = values[i];
    }
}

/* One group of levels with eight columns: products are summed as integers, then scaled. */
#define EACH _Pragma("GCC unroll 8") for (int j = 0; j < TILE_COLUMNS; j++)

static inline __attribute__((always_inline)) void multiply_blocks(const struct tile *t, const struct columns *c, int64_t k,
                                                                  const int group, const bool has_minimum, __m512 *sum)
{
    const uint8_t *level = t->level;
    const int32_t *column = (const int32_t *)c->level;
    for (int64_t g = 0; g < k / group; g++) {
        __m512i products[TILE_COLUMNS];
        EACH products[j] = _mm512_set1_epi32(c->start[g * 8 + j]);
        _Pragma("GCC unroll 8") for (int i = 0; i < group / 4; i++, level += 64, column += 8)
        {
            __m512i w = _mm512_loadu_si512(level);
            EACH products[j] = _mm512_dpbusd_epi32(products[j], w, _mm512_set1_epi32(column[j]));
        }
        __m512 scale = _mm512_loadu_ps(t->scale + g * 16);
        const float *s = c->scale + g * group / 32 * 8;
        EACH sum[j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[j]), _mm512_mul_ps(scale, _mm512_set1_ps(s[j])), sum[j]);
        if (has_minimum) {
            __m512 minimum = _mm512_loadu_ps(t->minimum + g * 16);
            EACH sum[j] = _mm512_fnmadd_ps(minimum, _mm512_set1_ps(c->weighted[g * 8 + j]), sum[j]);
        }
    }
}

static void multiply_floats(const float *row, const float *column, int64_t k, __m512 *sum)
{
    for (int64_t i = 0; i < k; i++, row += 16, column += 8) {
        __m512 w = _mm512_loadu_ps(row);
        EACH sum[j] = _mm512_fmadd_ps(w, _mm512_set1_ps(column[j]), sum[j]);
    }
}

void tile_multiply(int32_t type, const uint8_t *rows, const uint8_t *columns, int64_t k, float (*to)[TILE_ROWS])
{
    struct tile t = tile_at(type, k, rows);
    struct columns c = columns_at(type, k, columns);
    __m512 sum[TILE_COLUMNS];
    EACH sum[j] = _mm512_setzero_ps();
    if (!is_block(type))
        multiply_floats((const float *)rows, c.values, k, sum);
    else if (block_types[type].group == 32 && block_types[type].has_minimum)
        multiply_blocks(&t, &c, k, 32, true, sum);
    else if (block_types[type].group == 32)
        multiply_blocks(&t, &c, k, 32, false, sum);
    else if (block_types[type].has_minimum)
        multiply_blocks(&t, &c, k, 16, true, sum);
    else
        multiply_blocks(&t, &c, k, 16, false, sum);
    EACH _mm512_storeu_ps(to[j], sum[j]);
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
