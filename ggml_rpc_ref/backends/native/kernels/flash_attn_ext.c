/* FLASH_ATTN_EXT: softmax(scale * Q K^T + mask) V for each head, without ever having all scores at once.

   The softmax of a growing list of keys: with the largest score so far, the sum of exp(score - largest) and the weighted sum of
   values, each part of the keys is added by scaling what was there. All in float32.

   Few queries (a token being generated): a unit is a part of the keys for all heads that share them (phase 1); the parts are
   joined in phase 2. Many queries (a prompt): keys are turned into panels of sixteen and values into float32 once (phase 1); a
   unit is eight pairs of query and head that share keys (phase 2). Either way the parts do not depend on the number of threads.

   A key that the mask hides counts for nothing, whatever it holds. */
#include "attention.h"
#include "blocks.h"
#include "dot.h"
#include "elements.h"
#include "vector.h"

#define PART 64     /* keys scored at a time */
#define COLUMNS 8   /* pairs of query and head computed together */
#if LANES == 16
#define AT_ONCE 8   /* columns whose sums fit the registers */
#else
#define AT_ONCE 4
#endif
#define PANEL 16    /* keys that lie side by side */
#define PANEL_VECTORS (PANEL / LANES)
#define EACH_OF(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

/* ------------------------------------------------------------------------------------------------ what both ways share */

/* The sizes of a node. */
struct sizes {
    int64_t dk, dv, queries, heads, batch, keys, k_heads, v_heads, shared;
    /* heads are dealt out in groups that share both K and V: `group` of them each, `groups` in all */
    int64_t group, groups;
};

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

static struct sizes sizes_of(const struct geometry *g)
{
    const struct layout *q = &g->src[0], *k = &g->src[1], *v = &g->src[2];
    struct sizes s = {.dk = q->ne[0], .dv = v->ne[0], .queries = q->ne[1], .heads = q->ne[2], .batch = q->ne[3],
                      .keys = k->ne[1], .k_heads = k->ne[2], .v_heads = v->ne[2]};
    s.group = gcd(s.heads / s.k_heads, s.heads / s.v_heads);
    s.groups = s.heads / s.group;
    return s;
}

static const uint8_t *matrix_for(const struct layout *l, const uint8_t *data, const struct sizes *s, int64_t head, int64_t i3)
{
    return row_at(l, (uint8_t *)data, 0, head / (s->heads / l->ne[2]), i3 / (s->batch / l->ne[3]));
}

/* What a query has gathered so far. */
struct gathered {
    float top, total;
    bool seen;      /* a key that the mask does not hide */
};

static float f16_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return from_half(half);
}

/* Scores to masked ones, in place: what is hidden becomes -inf. Returns whether any is not hidden. */
static bool mask_scores(const struct node *node, const struct sizes *s, float *score, int64_t n, int64_t first, int64_t query,
                        int64_t head, int64_t i3)
{
    const struct geometry *g = node->of;
    const struct layout *mask = &g->src[3];
    float scale = flash_attn_ext_scale(g), cap = flash_attn_ext_logit_softcap(g);
    for (int64_t i = 0; i < n; i++)
        score[i] *= scale;
    if (cap != 0)
        for (int64_t i = 0; i < n; i++)
            score[i] = cap * tanhf(score[i] / cap);
    if (!present(mask))
        return true;
    const uint8_t *row = row_at(mask, node->src[3], query, head % mask->ne[2], i3 % mask->ne[3]) + 2 * first;
    const f32x16 slope = splat(slope_of(head, s->heads, flash_attn_ext_max_bias(g))), none = splat(-INFINITY);
    i32x16 shown = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 bias = slope * load_f16(row + 2 * i);
        i32x16 hidden = bias == none;
        store16(score + i, choose(hidden, none, load16(score + i) + bias));
        shown |= ~hidden;
    }
    bool seen = any(shown);
    for (; i < n; i++) {
        float bias = slope[0] * f16_at(row + 2 * i);
        bool hidden = bias == -INFINITY;
        score[i] = hidden ? -INFINITY : score[i] + bias;
        seen |= !hidden;
    }
    return seen;
}

/* Scores to weights exp(score - top), in place, with the largest so far; returns the factor on what was gathered before. */
static float weigh(struct gathered *so_far, float *score, int64_t n)
{
    f32x16 most = splat(so_far->top), sums = {0}; /* a NaN is passed over, but not by the sum */
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 v = load16(score + i);
        most = choose(v > most, v, most);
    }
    float top = max16(most);
    for (; i < n; i++)
        top = score[i] > top ? score[i] : top;
    float safe = top == -INFINITY ? 0 : top, before = so_far->top == -INFINITY ? 0 : expf(so_far->top - safe);
    for (i = 0; i + LANES <= n; i += LANES) {
        f32x16 e = exp16(load16(score + i) - safe);
        store16(score + i, e);
        sums += e;
    }
    if (i < n) {
        f32x16 e = exp16(load_some(score + i, n - i) - safe);
        store_some(score + i, e, n - i);
        sums += load_some(score + i, n - i);
    }
    so_far->total = so_far->total * before + sum16(sums);
    so_far->top = top;
    return before;
}

/* y = y * factor. */
static void scale_row(float *y, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++)
        y[i] *= factor;
}

/* The result of a query: its sum divided by the weights', a sink's weight included. */
static void finish(const struct node *node, const struct gathered *so_far, float *sum, int64_t dv, int64_t head, f32 *dst)
{
    float total = so_far->total, factor = 1, top = so_far->top;
    if (so_far->seen && top == -INFINITY) { /* scores of -inf throughout have no softmax, even with a sink */
        for (int64_t i = 0; i < dv; i++)
            dst[i] = NAN;
        return;
    }
    if (present(&node->of->src[4])) {
        float sink;
        memcpy(&sink, node->src[4] + 4 * head, sizeof sink);
        float larger = sink > top ? sink : top;
        factor = top == -INFINITY ? 0 : expf(top - larger);
        total = total * factor + (larger == -INFINITY ? 0 : expf(sink - larger));
    }
    float of_none = has_change(node->of, CHANGE_FLASH_ATTN_EXT_HIDDEN) ? NAN : 0; /* before that change, 0 / 0 */
    factor = total == 0 ? of_none : factor / total;
    for (int64_t i = 0; i < dv; i++)
        dst[i] = sum[i] * factor;
}

static f32 *result_of(const struct node *node, int64_t head, int64_t query, int64_t i3)
{
    return (f32 *)row_at(&node->of->dst, node->dst, head, query, i3);
}

/* A query of a head. */
struct column {
    int64_t query, head;
};

/* Whether the mask hides n keys from all columns: half of a prompt's, and what a cache has room for. */
static bool hidden_part(const struct node *node, int64_t first, int64_t n, int64_t i3,
                        const struct column *column, int count)
{
    const struct layout *mask = &node->of->src[3];
    if (!present(mask) || flash_attn_ext_max_bias(node->of) > 0)
        return false;
    for (int c = 0; c < count; c++) {
        const uint8_t *row = row_at(mask, node->src[3], column[c].query, column[c].head % mask->ne[2], i3 % mask->ne[3]);
        for (int64_t i = first; i < first + n; i++) {
            uint16_t half;
            memcpy(&half, row + 2 * i, 2);
            if (half != 0xFC00) /* -inf */
                return false;
        }
    }
    return true;
}

/* ----------------------------------------------------------------------------------------------------------- few queries */

/* A part of the keys of a group of heads: for each of its queries what was gathered, then the sums of values. */
static int64_t keys_in_part(const struct sizes *s) { return max64(PART, (s->keys + 63) / 64 / PART * PART); }
static int64_t key_parts(const struct sizes *s) { return (s->keys + keys_in_part(s) - 1) / keys_in_part(s); }
static int64_t row_bytes(const struct sizes *s) { return aligned(sizeof(struct gathered)) + aligned(4 * s->dv); }

/* Pairs of query and head that are computed together: each element of a key or a value is read and converted once for all. */
#if LANES == 16
#define ROWS_AT_ONCE 4
#else
#define ROWS_AT_ONCE 2 /* what the registers hold */
#endif
#define VECTORS_AT_ONCE 4
#define KEYS_AT_ONCE 4

/* A row's query, scores or weights, and sum of values. */
struct attending {
    const float *q;
    float *score, *sum;
};

/* Scores of four keys, which lie `stride` bytes apart, with some rows. */
static inline __attribute__((always_inline)) void score_some(const struct attending *row, const int rows, const uint8_t *k,
                                                             int64_t stride, const int32_t type, int64_t dk, int64_t key)
{
    const int size = type == GGML_TYPE_F32 ? 4 : 2;
    f32x16 sum[ROWS_AT_ONCE][KEYS_AT_ONCE] = {{{0}}};
    int64_t i = 0;
    for (; i + LANES <= dk; i += LANES) {
        f32x16 keys[KEYS_AT_ONCE];
        EACH_OF(j, KEYS_AT_ONCE) keys[j] = load_floats(k + j * stride + i * size, type);
        EACH_OF(r, rows)
        {
            f32x16 q = load16(row[r].q + i);
            EACH_OF(j, KEYS_AT_ONCE) sum[r][j] = fma16(q, keys[j], sum[r][j]);
        }
    }
    if (i < dk)
        EACH_OF(j, KEYS_AT_ONCE)
        {
            uint8_t rest[4 * LANES] = {0};
            memcpy(rest, k + j * stride + i * size, (size_t)(size * (dk - i)));
            EACH_OF(r, rows) sum[r][j] = fma16(load_some(row[r].q + i, dk - i), load_floats(rest, type), sum[r][j]);
        }
    EACH_OF(r, rows) EACH_OF(j, KEYS_AT_ONCE) row[r].score[key + j] = sum16(sum[r][j]);
}

static inline __attribute__((always_inline)) void score_typed(const struct attending *row, const int rows, const uint8_t *k,
                                                              int64_t stride, const int32_t type, int64_t dk, int64_t n)
{
    int64_t key = 0;
    for (; key + KEYS_AT_ONCE <= n; key += KEYS_AT_ONCE)
        score_some(row, rows, k + key * stride, stride, type, dk, key);
    for (; key < n; key++)
        for (int r = 0; r < rows; r++)
            row[r].score[key] = dot_floats(row[r].q, k + key * stride, type, dk);
}

/* Keys of a part. */
struct keys {
    int32_t count, number[PART];
};

/* Add some rows' vectors of values, by their weights, from element i on; each of the keys has a weight in each row. */
static inline __attribute__((always_inline)) void add_some(const struct attending *row, const int rows, const uint8_t *v,
                                                           int64_t stride, const int32_t type, int64_t i, const int count,
                                                           const struct keys *keys)
{
    const int size = type == GGML_TYPE_F32 ? 4 : 2;
    f32x16 sum[ROWS_AT_ONCE][VECTORS_AT_ONCE];
    EACH_OF(r, rows) EACH_OF(j, count) sum[r][j] = load16(row[r].sum + i + j * LANES);
    for (int32_t at = 0; at < keys->count; at++) {
        int64_t key = keys->number[at];
        const uint8_t *from = v + key * stride + i * size;
        f32x16 values[VECTORS_AT_ONCE];
        EACH_OF(j, count) values[j] = load_floats(from + j * LANES * size, type);
        EACH_OF(r, rows)
        {
            f32x16 weight = splat(row[r].score[key]);
            EACH_OF(j, count) sum[r][j] = fma16(weight, values[j], sum[r][j]);
        }
    }
    EACH_OF(r, rows) EACH_OF(j, count) store16(row[r].sum + i + j * LANES, sum[r][j]);
}

static inline __attribute__((always_inline)) void add_typed(const struct attending *row, const int rows, const uint8_t *v,
                                                            int64_t stride, const int32_t type, int64_t dv,
                                                            const struct keys *keys)
{
    int64_t i = 0;
    for (; i + VECTORS_AT_ONCE * LANES <= dv; i += VECTORS_AT_ONCE * LANES)
        add_some(row, rows, v, stride, type, i, VECTORS_AT_ONCE, keys);
    for (; i + LANES <= dv; i += LANES)
        add_some(row, rows, v, stride, type, i, 1, keys);
    for (int r = 0; r < rows && i < dv; r++)
        for (int32_t at = 0; at < keys->count; at++) {
            const uint8_t *from = v + keys->number[at] * stride;
            for (int64_t rest = i; rest < dv; rest++)
                row[r].sum[rest] += row[r].score[keys->number[at]] * float_at(type, from + rest * (type == GGML_TYPE_F32 ? 4 : 2));
        }
}

/* How many of the rows that are left are computed together: the compiler unrolls a copy for each number. */
static int rows_together(int left) { return left >= ROWS_AT_ONCE ? ROWS_AT_ONCE : left >= 2 ? 2 : 1; }

#define EACH_COPY(CALL)                                                  \
    for (int first_row = 0, some; first_row < rows; first_row += some) { \
        some = rows_together(rows - first_row);                          \
        if (some == ROWS_AT_ONCE && type == GGML_TYPE_F32)               \
            CALL(ROWS_AT_ONCE, GGML_TYPE_F32);                           \
        else if (some == ROWS_AT_ONCE)                                   \
            CALL(ROWS_AT_ONCE, GGML_TYPE_F16);                           \
        else if (some == 2 && type == GGML_TYPE_F32)                     \
            CALL(2, GGML_TYPE_F32);                                      \
        else if (some == 2)                                              \
            CALL(2, GGML_TYPE_F16);                                      \
        else if (type == GGML_TYPE_F32)                                  \
            CALL(1, GGML_TYPE_F32);                                      \
        else                                                             \
            CALL(1, GGML_TYPE_F16);                                      \
    }

/* Scores of n keys with some rows. */
static void score_rows(const struct attending *row, int rows, const uint8_t *k, int64_t stride, int32_t type, int64_t dk, int64_t n)
{
#define CALL(count, type) score_typed(row + first_row, count, k, stride, type, dk, n)
    EACH_COPY(CALL)
#undef CALL
}

/* Add values of keys that have a weight in each row. */
static void add_rows(const struct attending *row, int rows, const uint8_t *v, int64_t stride, int32_t type, int64_t dv,
                     const struct keys *keys)
{
#define CALL(count, type) add_typed(row + first_row, count, v, stride, type, dv, keys)
    EACH_COPY(CALL)
#undef CALL
}

/* Add n values, by their weights; a value without weight is not read: it may be NaN. */
static void add_weighted(const struct attending *row, int rows, const uint8_t *v, int64_t stride, int32_t type, int64_t dv, int64_t n)
{
    struct keys keys = {.count = 0};
    int32_t found[PART] = {0}; /* in how many rows a key has a weight */
    for (int r = 0; r < rows; r++)
        for (int64_t key = 0; key < n; key++)
            found[key] += row[r].score[key] != 0;
    for (int32_t key = 0; key < n; key++)
        if (found[key] == rows)
            keys.number[keys.count++] = key;
        else
            for (int r = 0; found[key] && r < rows; r++)
                if (row[r].score[key] != 0)
                    add_rows(row + r, 1, v, stride, type, dv, &(struct keys){1, {key}});
    add_rows(row, rows, v, stride, type, dv, &keys);
}

/* A row of a group that shares keys. */
struct attended {
    struct column column;
    struct gathered *so_far;
    float *sum;
};

static void attend_part(const struct node *node, const struct sizes *s, const struct attended *some, int count, int64_t i3,
                        int64_t first, int64_t last)
{
    const struct geometry *g = node->of;
    const struct layout *lk = &g->src[1], *lv = &g->src[2];
    const uint8_t *k = matrix_for(lk, node->src[1], s, some->column.head, i3);
    const uint8_t *v = matrix_for(lv, node->src[2], s, some->column.head, i3);
    for (int64_t at = first; at < last; at += PART) {
        float score[ROWS_AT_ONCE][PART];
        struct attending all[ROWS_AT_ONCE], seen[ROWS_AT_ONCE];
        int64_t n = min64(PART, last - at);
        int shown = 0, seeing = 0;
        const struct attended *who[ROWS_AT_ONCE];
        for (int r = 0; r < count; r++)
            if (!hidden_part(node, at, n, i3, &some[r].column, 1)) {
                const float *q = (const float *)row_at(&g->src[0], node->src[0], some[r].column.query, some[r].column.head, i3);
                who[shown] = &some[r];
                all[shown] = (struct attending){q, score[shown], some[r].sum};
                shown++;
            }
        score_rows(all, shown, k + at * lk->nb[1], lk->nb[1], lk->type, s->dk, n);
        for (int r = 0; r < shown; r++) {
            if (!mask_scores(node, s, score[r], n, at, who[r]->column.query, who[r]->column.head, i3))
                continue;
            who[r]->so_far->seen = true;
            scale_row(all[r].sum, s->dv, weigh(who[r]->so_far, score[r], n));
            seen[seeing++] = all[r];
        }
        add_weighted(seen, seeing, v + at * lv->nb[1], lv->nb[1], lv->type, s->dv, n);
    }
}

/* Unit: (batch, group of heads, part of the keys). */
static void attend_parts(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    struct sizes s = sizes_of(node->of);
    int64_t parts = key_parts(&s), rows = s.group * s.queries;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t part = unit % parts, group = unit / parts % s.groups, i3 = unit / parts / s.groups;
        int64_t start = part * keys_in_part(&s), end = min64(start + keys_in_part(&s), s.keys);
        struct attended some[ROWS_AT_ONCE];
        int count = 0;
        for (int64_t row = 0; row < rows; row++) {
            uint8_t *to = work->shared + (unit * rows + row) * row_bytes(&s);
            struct attended *a = &some[count++];
            *a = (struct attended){{row / s.group, group * s.group + row % s.group}, (struct gathered *)to,
                                   (float *)(to + aligned(sizeof(struct gathered)))};
            *a->so_far = (struct gathered){-INFINITY, 0, false};
            memset(a->sum, 0, 4 * s.dv);
            if (count == ROWS_AT_ONCE || row + 1 == rows) {
                attend_part(node, &s, some, count, i3, start, end);
                count = 0;
            }
        }
    }
}

/* Unit: (batch, group of heads). */
static void join_parts(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    struct sizes s = sizes_of(node->of);
    int64_t parts = key_parts(&s), rows = s.group * s.queries;
    for (int64_t unit = first; unit < last; unit++)
        for (int64_t row = 0; row < rows; row++) {
            int64_t head = unit % s.groups * s.group + row % s.group;
            float *sum = (float *)work->own;
            struct gathered all = {-INFINITY, 0, false};
            memset(sum, 0, 4 * s.dv);
            for (int64_t part = 0; part < parts; part++) {
                const uint8_t *from = work->shared + ((unit * parts + part) * rows + row) * row_bytes(&s);
                const struct gathered *some = (const struct gathered *)from;
                const float *values = (const float *)(from + aligned(sizeof *some));
                float top = some->top > all.top ? some->top : all.top, safe = top == -INFINITY ? 0 : top;
                float mine = all.top == -INFINITY ? 0 : expf(all.top - safe);
                float its = some->top == -INFINITY && !(some->total != some->total) ? 0 : expf(some->top - safe);
                if (some->total != some->total)
                    its = NAN; /* a score was NaN */
                for (int64_t i = 0; i < s.dv; i++)
                    sum[i] = sum[i] * mine + (its == 0 ? 0 : values[i] * its);
                all = (struct gathered){top, all.total * mine + (its == 0 ? 0 : some->total * its), all.seen || some->seen};
            }
            finish(node, &all, sum, s.dv, head, result_of(node, head, row / s.group, unit / s.groups));
        }
}

/* ---------------------------------------------------------------------------------------------------------- many queries */

/* Keys in panels [key / 16][dk][16], then values [key][dv], of each matrix; a word at the beginning says whether all are finite. */
static int64_t padded_keys(const struct sizes *s) { return (s->keys + PART - 1) / PART * PART; }
static int64_t k_bytes(const struct sizes *s) { return aligned(4 * padded_keys(s) * s->dk); }
static int64_t v_bytes(const struct sizes *s) { return aligned(4 * padded_keys(s) * s->dv); }
static int64_t k_matrices(const struct geometry *g) { return g->src[1].ne[2] * g->src[1].ne[3]; }
static int64_t v_matrices(const struct geometry *g) { return g->src[2].ne[2] * g->src[2].ne[3]; }
static int64_t blocks_of(const struct sizes *s) { return padded_keys(s) / PANEL; }

static void panel_of_keys(const struct geometry *g, const struct sizes *s, const uint8_t *k, int64_t first, float *row, float *to)
{
    for (int64_t lane = 0; lane < PANEL; lane++) {
        if (first + lane < s->keys)
            dequantise_row(g->src[1].type, k + (first + lane) * g->src[1].nb[1], row, s->dk);
        else
            memset(row, 0, 4 * s->dk);
        for (int64_t i = 0; i < s->dk; i++)
            to[i * PANEL + lane] = row[i];
    }
}

static bool rows_of_values(const struct geometry *g, const struct sizes *s, const uint8_t *v, int64_t first, float *to)
{
    bool finite = true;
    for (int64_t lane = 0; lane < PANEL; lane++, to += s->dv) {
        if (first + lane >= s->keys) {
            memset(to, 0, 4 * s->dv);
            continue;
        }
        dequantise_row(g->src[2].type, v + (first + lane) * g->src[2].nb[1], to, s->dv);
        float sum = 0;
        for (int64_t i = 0; i < s->dv; i++)
            sum += to[i] - to[i]; /* NaN where one is not finite */
        finite &= sum == 0;
    }
    return finite;
}

/* Unit: sixteen keys of a matrix of K, then sixteen of a matrix of V. Units of V report what is not finite in a word each. */
static void lay_out(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    struct sizes s = sizes_of(g);
    int64_t of_keys = k_matrices(g) * blocks_of(&s);
    for (int64_t unit = first; unit < last; unit++) {
        bool is_key = unit < of_keys;
        const struct layout *l = &g->src[is_key ? 1 : 2];
        int64_t number = is_key ? unit : unit - of_keys, matrix = number / blocks_of(&s), block = number % blocks_of(&s);
        const uint8_t *from = row_at(l, node->src[is_key ? 1 : 2], 0, matrix % l->ne[2], matrix / l->ne[2]);
        uint8_t *panels = work->shared + aligned(4 * v_matrices(g) * blocks_of(&s));
        if (is_key) {
            float *to = (float *)(panels + matrix * k_bytes(&s)) + block * PANEL * s.dk;
            panel_of_keys(g, &s, from, block * PANEL, (float *)work->own, to);
        } else {
            float *to = (float *)(panels + k_matrices(g) * k_bytes(&s) + matrix * v_bytes(&s)) + block * PANEL * s.dv;
            ((int32_t *)work->shared)[number] = rows_of_values(g, &s, from, block * PANEL, to);
        }
    }
}

/* Scores of PART keys with eight columns: to[column][key]. */
static void score_part(const float *panels, const float *q, int64_t dk, float (*to)[PART])
{
    for (int block = 0; block < PART / PANEL; block++)
        for (int first = 0; first < COLUMNS; first += AT_ONCE) {
            f32x16 sum[AT_ONCE][PANEL_VECTORS] = {{{0}}};
            const float *k = panels + block * PANEL * dk;
            for (int64_t i = 0; i < dk; i++)
                EACH_OF(v, PANEL_VECTORS)
                {
                    f32x16 keys = load16(k + i * PANEL + v * LANES);
                    EACH_OF(c, AT_ONCE) sum[c][v] = fma16(keys, splat(q[i * COLUMNS + first + c]), sum[c][v]);
                }
            EACH_OF(c, AT_ONCE) EACH_OF(v, PANEL_VECTORS) store16(to[first + c] + block * PANEL + v * LANES, sum[c][v]);
        }
}

/* Add n keys' values, by their weights, to the sums of eight columns; dv is padded to whole vectors in `sum`. */
static void add_values(const float *v, int64_t dv, int64_t n, float (*weight)[PART], float *sum, int64_t stride)
{
    int64_t i = 0;
    for (; i + PANEL <= dv; i += PANEL)
        for (int first = 0; first < COLUMNS; first += AT_ONCE) {
            f32x16 s[AT_ONCE][PANEL_VECTORS];
            EACH_OF(c, AT_ONCE) EACH_OF(p, PANEL_VECTORS) s[c][p] = load16(sum + (first + c) * stride + i + p * LANES);
            for (int64_t key = 0; key < n; key++)
                EACH_OF(p, PANEL_VECTORS)
                {
                    f32x16 x = load16(v + key * dv + i + p * LANES);
                    EACH_OF(c, AT_ONCE) s[c][p] = fma16(splat(weight[first + c][key]), x, s[c][p]);
                }
            EACH_OF(c, AT_ONCE) EACH_OF(p, PANEL_VECTORS) store16(sum + (first + c) * stride + i + p * LANES, s[c][p]);
        }
    for (int c = 0; c < COLUMNS; c++)
        for (int64_t rest = i; rest < dv; rest++)
            for (int64_t key = 0; key < n; key++)
                sum[c * stride + rest] += weight[c][key] * v[key * dv + rest];
}

/* The same where a value is not finite: what has no weight adds nothing. */
static void add_strange_values(const float *v, int64_t dv, int64_t n, float (*weight)[PART], float *sum, int64_t stride)
{
    for (int c = 0; c < COLUMNS; c++)
        for (int64_t key = 0; key < n; key++)
            for (int64_t i = 0; weight[c][key] != 0 && i < dv; i++)
                sum[c * stride + i] += weight[c][key] * v[key * dv + i];
}

static bool all_finite(const struct work *work, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count; i++)
        if (!((const int32_t *)work->shared)[i])
            return false;
    return true;
}

/* Eight columns of a group of heads with all keys. */
static void attend_columns(const struct node *node, const struct sizes *s, int64_t i3, int64_t group, const struct column *column,
                           int count, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *lk = &g->src[1], *lv = &g->src[2];
    int64_t head = group * s->group, stride = aligned(4 * s->dv) / 4;
    int64_t k_matrix = i3 / (s->batch / lk->ne[3]) * lk->ne[2] + head / (s->heads / lk->ne[2]);
    int64_t v_matrix = i3 / (s->batch / lv->ne[3]) * lv->ne[2] + head / (s->heads / lv->ne[2]);
    const uint8_t *panels = work->shared + aligned(4 * v_matrices(g) * blocks_of(s));
    const float *k = (const float *)(panels + k_matrix * k_bytes(s));
    const float *v = (const float *)(panels + k_matrices(g) * k_bytes(s) + v_matrix * v_bytes(s));
    float *q = (float *)work->own, *sum = (float *)(work->own + aligned(4 * COLUMNS * s->dk));
    struct gathered so_far[COLUMNS];
    memset(q, 0, 4 * COLUMNS * s->dk);
    memset(sum, 0, 4 * COLUMNS * stride);
    for (int c = 0; c < count; c++) {
        const f32 *row = (const f32 *)row_at(&g->src[0], node->src[0], column[c].query, column[c].head, i3);
        for (int64_t i = 0; i < s->dk; i++)
            q[i * COLUMNS + c] = row[i];
        so_far[c] = (struct gathered){-INFINITY, 0, false};
    }
    for (int64_t at = 0; at < s->keys; at += PART) {
        float score[COLUMNS][PART];
        bool seen = false;
        int64_t n = min64(PART, s->keys - at);
        if (hidden_part(node, at, n, i3, column, count))
            continue;
        score_part(k + at * s->dk, q, s->dk, score);
        for (int c = 0; c < COLUMNS; c++) {
            if (c < count && mask_scores(node, s, score[c], n, at, column[c].query, column[c].head, i3)) {
                so_far[c].seen = seen = true;
                float factor = weigh(&so_far[c], score[c], n);
                if (factor != 1)
                    scale_row(sum + c * stride, s->dv, factor);
            } else {
                memset(score[c], 0, sizeof score[c]);
            }
        }
        if (!seen)
            continue;
        if (all_finite(work, v_matrix * blocks_of(s) + at / PANEL, (n + PANEL - 1) / PANEL))
            add_values(v + at * s->dv, s->dv, n, score, sum, stride);
        else
            add_strange_values(v + at * s->dv, s->dv, n, score, sum, stride);
    }
    for (int c = 0; c < count; c++)
        finish(node, &so_far[c], sum + c * stride, s->dv, column[c].head, result_of(node, column[c].head, column[c].query, i3));
}

/* Unit: (batch, group of heads, eight columns); columns are counted by query, then head, so that neighbours see the same keys. */
static void attend_tiles(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    struct sizes s = sizes_of(node->of);
    int64_t columns = s.group * s.queries, tiles = (columns + COLUMNS - 1) / COLUMNS;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t tile = unit % tiles, group = unit / tiles % s.groups, i3 = unit / tiles / s.groups;
        int count = (int)min64(COLUMNS, columns - tile * COLUMNS);
        struct column column[COLUMNS];
        for (int c = 0; c < count; c++) {
            int64_t number = tile * COLUMNS + c;
            column[c] = (struct column){number / s.group, group * s.group + number % s.group};
        }
        attend_columns(node, &s, i3, group, column, count, work);
    }
}

static bool plan(struct geometry *g)
{
    const struct layout *q = &g->src[0], *k = &g->src[1], *v = &g->src[2];
    if (!is_f32(q) || !dense_rows(q) || !can_dequantise(k->type) || !can_dequantise(v->type) || !dense_rows(k) || !dense_rows(v))
        return false;
    struct sizes s = sizes_of(g);
    if (s.dk == 0 || s.dv == 0 || s.keys == 0)
        return false;
    bool plain = (k->type == GGML_TYPE_F32 || k->type == GGML_TYPE_F16) && (v->type == GGML_TYPE_F32 || v->type == GGML_TYPE_F16);
    int64_t columns = s.group * s.queries;
    double products = (double)s.keys * (double)(s.dk + s.dv);
    if (plain && s.queries <= 4) {
        int64_t units = s.batch * s.groups * key_parts(&s);
        g->shared = units * columns * row_bytes(&s);
        g->own = aligned(4 * s.dv);
        add_phase(g, attend_parts, units, products / key_parts(&s) * columns / 8);
        add_phase(g, join_parts, s.batch * s.groups, (double)columns * key_parts(&s) * s.dv / 4);
        return true;
    }
    g->shared = aligned(4 * v_matrices(g) * blocks_of(&s)) + k_matrices(g) * k_bytes(&s) + v_matrices(g) * v_bytes(&s);
    g->own = aligned(4 * COLUMNS * s.dk) + COLUMNS * aligned(4 * s.dv);
    add_phase(g, lay_out, (k_matrices(g) + v_matrices(g)) * blocks_of(&s), PANEL * (double)(s.dk + s.dv));
    add_phase(g, attend_tiles, s.batch * s.groups * ((columns + COLUMNS - 1) / COLUMNS), products * COLUMNS / 20);
    return true;
}

KERNEL(flash_attn_ext, GGML_OP_FLASH_ATTN_EXT, plan);
