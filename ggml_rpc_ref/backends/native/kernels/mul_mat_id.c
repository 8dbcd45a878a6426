/* MUL_MAT_ID: each row of src1 times the matrix of the expert that src2 chooses for it.

   Phase 1 (one unit) checks the choices and lists, for each expert, the results that it computes; phase 2 prepares eight of one
   expert's rows of src1 in each unit; phase 3 multiplies sixteen rows of an expert with all that chose it. */
#include "matmul.h"

/* What phase 1 finds, at the beginning of the shared memory. */
struct choices {
    int32_t *begin;  /* [experts + 1]: where an expert's results begin in `result` */
    int32_t *batch;  /* [experts + 1]: and its batches of eight */
    int32_t *result; /* [used * tokens]: numbers of results, token * used + slot */
    uint8_t *prepared;
};

static int64_t experts_of(const struct geometry *g) { return g->src[0].ne[2]; }
static int64_t results_of(const struct geometry *g) { return g->dst.ne[1] * g->dst.ne[2]; }
static int64_t most_batches(const struct geometry *g)
{
    return results_of(g) / TILE_COLUMNS + min64(experts_of(g), results_of(g));
}
static int64_t blocks_of_rows(const struct geometry *g) { return (g->src[0].ne[1] + TILE_ROWS - 1) / TILE_ROWS; }

/* Experts are seldom chosen by as many rows as there are on average: tiles pay from the same number on. */
static struct product product_here(const struct geometry *g)
{
    return product_of(g, results_of(g) / max64(1, min64(experts_of(g), results_of(g))));
}

static struct choices choices_at(const struct geometry *g, uint8_t *memory)
{
    struct choices c;
    int64_t table = aligned(4 * (experts_of(g) + 1));
    c.begin = (int32_t *)memory;
    c.batch = (int32_t *)(memory + table);
    c.result = (int32_t *)(memory + 2 * table);
    c.prepared = memory + 2 * table + aligned(4 * results_of(g));
    return c;
}

static int32_t choice(const struct node *node, int64_t result)
{
    const struct layout *l = &node->of->src[2];
    int32_t expert;
    memcpy(&expert, node->src[2] + result % l->ne[0] * l->nb[0] + result / l->ne[0] * l->nb[1], sizeof expert);
    return expert;
}

static void sort_choices(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)first, (void)last;
    const struct geometry *g = node->of;
    struct choices c = choices_at(g, work->shared);
    int64_t experts = experts_of(g);
    memset(c.begin, 0, 4 * (experts + 1));
    for (int64_t i = 0; i < results_of(g); i++) {
        int32_t expert = choice(node, i);
        if (expert < 0 || expert >= experts) {
            atomic_store(work->outcome, BAD_INDEX);
            return;
        }
        c.begin[expert + 1]++;
    }
    c.batch[0] = 0;
    for (int64_t e = 0; e < experts; e++) {
        c.batch[e + 1] = c.batch[e] + (c.begin[e + 1] + TILE_COLUMNS - 1) / TILE_COLUMNS;
        c.begin[e + 1] += c.begin[e];
    }
    /* each expert's place moves on as it is filled, and is put back by the loop after */
    for (int64_t i = 0; i < results_of(g); i++)
        c.result[c.begin[choice(node, i)]++] = (int32_t)i;
    for (int64_t e = experts; e > 0; e--)
        c.begin[e] = c.begin[e - 1];
    c.begin[0] = 0;
}

/* The batch of an expert that begins with the result at a place of the list. */
static struct batch batch_at(const struct node *node, const struct choices *c, int64_t at, int64_t end)
{
    const struct geometry *g = node->of;
    struct batch b = {.count = (int)min64(TILE_COLUMNS, end - at)};
    for (int j = 0; j < b.count; j++) {
        int64_t token = c->result[at + j] / g->dst.ne[1], slot = c->result[at + j] % g->dst.ne[1];
        b.row[j] = row_at(&g->src[1], node->src[1], slot % g->src[1].ne[1], token, 0);
        b.to[j] = (float *)row_at(&g->dst, node->dst, slot, token, 0);
    }
    return b;
}

static void prepare(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    struct choices c = choices_at(g, work->shared);
    struct product p = product_here(g);
    int64_t expert = 0;
    for (int64_t unit = first; unit < last && unit < c.batch[experts_of(g)]; unit++) {
        while (c.batch[expert + 1] <= unit)
            expert++;
        int64_t at = c.begin[expert] + (unit - c.batch[expert]) * TILE_COLUMNS;
        struct batch b = batch_at(node, &c, at, c.begin[expert + 1]);
        prepare_batch(&p, &b, work->own, c.prepared + unit * prepared_size(&p));
    }
}

static void multiply(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *w = &g->src[0];
    struct choices c = choices_at(g, work->shared);
    struct product p = product_here(g);
    for (int64_t unit = first; unit < last; unit++) {
        int64_t expert = unit / blocks_of_rows(g), i = unit % blocks_of_rows(g) * TILE_ROWS;
        if (c.begin[expert] == c.begin[expert + 1])
            continue;
        const uint8_t *weights = row_at(w, node->src[0], i, expert, 0);
        int count = (int)min64(TILE_ROWS, w->ne[1] - i);
        unpack_weights(&p, weights, w->nb[1], count, work->own);
        for (int64_t at = c.begin[expert], number = c.batch[expert]; at < c.begin[expert + 1]; at += TILE_COLUMNS, number++) {
            struct batch b = batch_at(node, &c, at, c.begin[expert + 1]);
            multiply_batch(&p, weights, w->nb[1], count, i, &b, c.prepared + number * prepared_size(&p), work->own);
        }
    }
}

static bool plan(struct geometry *g)
{
    if (!can_multiply(g) || results_of(g) > INT32_MAX || experts_of(g) >= INT32_MAX)
        return false;
    struct product p = product_here(g);
    int64_t rows_each = max64(1, results_of(g) / max64(1, experts_of(g)));
    g->shared = 2 * aligned(4 * (experts_of(g) + 1)) + aligned(4 * results_of(g)) + most_batches(g) * prepared_size(&p);
    g->own = multiply_scratch(&p);
    add_phase(g, sort_choices, 1, 4.0 * results_of(g));
    if (prepared_size(&p))
        add_phase(g, prepare, most_batches(g), (double)p.k * TILE_COLUMNS);
    add_phase(g, multiply, experts_of(g) * blocks_of_rows(g), (double)p.k * TILE_ROWS * rows_each / 20);
    return true;
}

KERNEL(mul_mat_id, GGML_OP_MUL_MAT_ID, plan);
