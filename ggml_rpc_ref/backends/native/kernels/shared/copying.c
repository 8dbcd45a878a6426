/* See copying.h. A unit is a row of dst; its elements come from one row of src0 or, where the dimensions differ, from several. */
#include "copying.h"

#include "blocks.h"
#include "quantise.h"

/* Where an element of src0 lies, by its number; `left` is how many follow it in its row, itself included. */
static const uint8_t *element_at(const struct layout *l, const uint8_t *data, int64_t number, int64_t length, int64_t *left)
{
    int64_t i0 = number % length;
    *left = length - i0;
    return row_of(l, (uint8_t *)data, number / length) + i0 * l->nb[0];
}

#define MOVE(TYPE)                                                           \
    for (int64_t i = 0; i < n; i++, to += to_step, from += from_step) {      \
        TYPE x;                                                              \
        memcpy(&x, from, sizeof x);                                          \
        memcpy(to, &x, sizeof x);                                            \
    }

void move_elements(uint8_t *to, int64_t to_step, const uint8_t *from, int64_t from_step, int64_t n, int64_t size)
{
    if (to_step == size && from_step == size) {
        memmove(to, from, (size_t)(n * size));
        return;
    }
    switch (size) {
    case 1: MOVE(uint8_t) break;
    case 2: MOVE(uint16_t) break;
    case 4: MOVE(uint32_t) break;
    case 8: MOVE(uint64_t) break;
    default:
        for (int64_t i = 0; i < n; i++, to += to_step, from += from_step)
            memcpy(to, from, (size_t)size);
    }
}

/* Rows whose elements keep their bytes. */
static void move_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *from = &node->of->src[0], *to = &node->of->dst;
    int64_t size = type_size[to->type], block = type_block[to->type];
    int64_t length = to->ne[0] / block, from_length = from->ne[0] / block;
    bool same = same_ne(from, to);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(to, row);
        uint8_t *dst = row_at(to, node->dst, p.i1, p.i2, p.i3);
        if (same) {
            move_elements(dst, to->nb[0], row_at(from, node->src[0], p.i1, p.i2, p.i3), from->nb[0], length, size);
            continue;
        }
        for (int64_t i = 0, left; i < length; i += left) {
            const uint8_t *src = element_at(from, node->src[0], row * length + i, from_length, &left);
            left = min64(left, length - i);
            move_elements(dst + i * to->nb[0], to->nb[0], src, from->nb[0], left, size);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- transposed */

#define SIDE 16 /* of a square of elements that is turned at a time: of four bytes, a cache line */

/* The dimension of src0 whose elements are neighbours, where another one takes its place as a row of dst; 0: none, or too short. */
static int turned(const struct layout *from, const struct layout *to)
{
    int64_t size = type_size[to->type];
    bool plain = type_block[to->type] == 1 && (size == 1 || size == 2 || size == 4 || size == 8);
    if (!plain || !same_ne(from, to) || to->nb[0] != size || from->nb[0] == size || to->ne[0] < SIDE)
        return 0;
    for (int dim = 1; dim < 4; dim++)
        if (from->nb[dim] == size && from->ne[dim] >= SIDE)
            return dim;
    return 0;
}

/* Columns that lie one after the other in memory to rows that do; a cache line of either is used up before the next one. */
#define TURN(TYPE)                                                                      \
    for (int64_t i = 0; i < length; i += SIDE) {                                        \
        TYPE square[SIDE][SIDE] = {{0}}, row[SIDE];                                     \
        int64_t n = min64(SIDE, length - i);                                            \
        for (int64_t k = 0; k < n; k++)                                                 \
            memcpy(square[k], from + (i + k) * from_step, (size_t)count * sizeof(TYPE)); \
        for (int64_t j = 0; j < count; j++) {                                           \
            for (int64_t k = 0; k < SIDE; k++)                                          \
                row[k] = square[k][j];                                                  \
            memcpy(to + j * to_step + i * (int64_t)sizeof(TYPE), row, (size_t)n * sizeof(TYPE)); \
        }                                                                               \
    }

static void turn(uint8_t *to, int64_t to_step, const uint8_t *from, int64_t from_step, int64_t length, int64_t count, int64_t size)
{
    switch (size) {
    case 1: TURN(uint8_t) break;
    case 2: TURN(uint16_t) break;
    case 4: TURN(uint32_t) break;
    default: TURN(uint64_t)
    }
}

/* A unit is up to SIDE rows of dst that are neighbours along the dimension that becomes another. */
static void turn_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *from = &node->of->src[0], *to = &node->of->dst;
    int dim = turned(from, to), second = dim == 1 ? 2 : 1, third = dim == 3 ? 2 : 3;
    int64_t size = type_size[to->type], groups = (to->ne[dim] + SIDE - 1) / SIDE;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t at = unit % groups * SIDE, rest = unit / groups, i = rest % to->ne[second], j = rest / to->ne[second];
        uint8_t *dst = node->dst + at * to->nb[dim] + i * to->nb[second] + j * to->nb[third];
        const uint8_t *src = node->src[0] + at * size + i * from->nb[second] + j * from->nb[third];
        turn(dst, to->nb[dim], src, from->nb[0], to->ne[0], min64(SIDE, to->ne[dim] - at), size);
    }
}

static bool plan_turning(struct geometry *g)
{
    const struct layout *to = &g->dst;
    int dim = turned(&g->src[0], to);
    int64_t groups = (to->ne[dim] + SIDE - 1) / SIDE;
    add_phase(g, turn_rows, rows(to) / to->ne[dim] * groups, (double)to->ne[0] * SIDE * 2);
    return true;
}

/* ---------------------------------------------------------------------------------------------------- other types */

static float to_float(int32_t type, const uint8_t *p)
{
    uint16_t half;
    int32_t whole;
    float x;
    switch (type) {
    case GGML_TYPE_F16: return memcpy(&half, p, 2), from_half(half);
    case GGML_TYPE_BF16: return memcpy(&half, p, 2), from_bf16(half);
    case GGML_TYPE_I32: return memcpy(&whole, p, 4), (float)whole;
    default: return memcpy(&x, p, 4), x;
    }
}

/* Part of a row of src0 as float32: in place where it is that, else in scratch memory. */
static const float *as_floats(const struct layout *l, const uint8_t *from, int64_t n, float *scratch)
{
    if (is_f32(l) && l->nb[0] == 4)
        return (const float *)from;
    if ((l->type == GGML_TYPE_F16 || l->type == GGML_TYPE_BF16) && l->nb[0] == 2)
        dequantise_row(l->type, from, scratch, n);
    else
        for (int64_t i = 0; i < n; i++)
            scratch[i] = to_float(l->type, from + i * l->nb[0]);
    return scratch;
}

static void put_int32(const f32 *x, uint8_t *to, int64_t step, int64_t n)
{
    for (int64_t i = 0; i < n; i++, to += step) {
        int32_t whole = fabsf(x[i]) < 0x1p31f ? (int32_t)x[i] : INT32_MIN;
        memcpy(to, &whole, sizeof whole);
    }
}

static void put_floats(const struct layout *l, const float *x, uint8_t *to, int64_t n)
{
    if (l->type == GGML_TYPE_I32)
        put_int32(x, to, l->nb[0], n);
    else if (l->nb[0] == type_size[l->type])
        quantise_row(l->type, x, to, n);
    else
        for (int64_t i = 0; i < n; i++)
            quantise_row(l->type, x + i, to + i * l->nb[0], 1);
}

/* Elements converted at a time: a whole number of blocks of every type. */
#define PIECE 1024

/* Rows of plain types that change their type, or become blocks; a row of src0 is then a whole number of blocks, as one of dst is. */
static void convert_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *from = &node->of->src[0], *to = &node->of->dst;
    float scratch[PIECE];
    int64_t length = to->ne[0], step = to->nb[0], block = type_block[to->type];
    for (int64_t row = first; row < last; row++) {
        uint8_t *dst = row_of(to, node->dst, row);
        for (int64_t i = 0, n; i < length; i += n) {
            const uint8_t *src = element_at(from, node->src[0], row * length + i, from->ne[0], &n);
            n = min64(min64(n, length - i), PIECE);
            put_floats(to, as_floats(from, src, n, scratch), dst + i / block * step, n);
        }
    }
}

/* Rows of blocks to F32; a unit is a row of src0, whose elements may go to several rows of dst. */
static void unpack_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct layout *from = &node->of->src[0], *to = &node->of->dst;
    float scratch[PIECE];
    for (int64_t row = first; row < last; row++) {
        const uint8_t *src = row_of(from, node->src[0], row);
        for (int64_t i = 0; i < from->ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, from->ne[0] - i);
            dequantise_row(from->type, src + row_size(from->type, i), scratch, n);
            for (int64_t done = 0, left; done < n; done += left) {
                uint8_t *dst = (uint8_t *)element_at(to, node->dst, row * from->ne[0] + i + done, to->ne[0], &left);
                left = min64(left, n - done);
                memcpy(dst, scratch + done, (size_t)(4 * left));
            }
        }
    }
}

bool plan_copy(struct geometry *g)
{
    const struct layout *from = &g->src[0], *to = &g->dst;
    bool from_block = type_block[from->type] > 1, to_block = type_block[to->type] > 1;
    if (from->type == to->type)
        return turned(from, to) ? plan_turning(g) : plan_rows(g, move_rows, 0.3);
    if (from_block) {
        add_phase(g, unpack_rows, rows(from), from->ne[0] * 0.5);
        return can_dequantise(from->type) && is_f32(to) && dense_rows(from) && dense_rows(to);
    }
    bool source = is_f32(from) || from->type == GGML_TYPE_F16 || from->type == GGML_TYPE_BF16 || from->type == GGML_TYPE_I32;
    bool result = can_quantise(to->type) || to->type == GGML_TYPE_I32;
    return source && result && plan_rows(g, convert_rows, to_block ? 2 : 0.6);
}
