/* What every kernel includes: the declarations, how to reach a tensor's rows, and how a kernel enters the table. */
#pragma once
#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "declared.h"

/* A float32 in a client's memory, which may begin at any byte: to read or write one as a float there is undefined. */
typedef float f32 __attribute__((aligned(1), may_alias));

/* What the threads that compute a phase have. */
struct work {
    uint8_t *shared;      /* scratch memory of the node, 64-byte aligned */
    uint8_t *own;         /* scratch memory of this thread, 64-byte aligned */
    atomic_int *outcome;  /* set it to BAD_INDEX where an index among the contents is out of range */
};

/* A kernel: says whether it computes nodes of a geometry, and fills in its phases. */
struct kernel {
    int op;
    bool (*plan)(struct geometry *g);
};

/* Each kernels/<op>.c ends with this; the name is the file's. */
#define KERNEL(name, number, plan) const struct kernel kernel_##name = {number, plan}

/* ------------------------------------------------------------------------------------------------------------- geometry */

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t rows(const struct layout *l) { return l->ne[1] * l->ne[2] * l->ne[3]; }
static inline int64_t elements(const struct layout *l) { return l->ne[0] * rows(l); }
static inline bool present(const struct layout *l) { return l->type >= 0; }
static inline bool is_f32(const struct layout *l) { return l->type == GGML_TYPE_F32; }

/* Whether the elements (or blocks) of a row are neighbours. */
static inline bool dense_rows(const struct layout *l)
{
    return l->nb[0] == type_size[l->type] || l->ne[0] == type_block[l->type];
}

/* Whether the op has a meaning of some versions (`spec.op_changes`). */
static inline bool has_change(const struct geometry *g, int change) { return g->changes >> change & 1; }

static inline bool same_ne(const struct layout *a, const struct layout *b) { return !memcmp(a->ne, b->ne, sizeof a->ne); }

/* Bytes of a row without gaps. */
static inline int64_t row_size(int32_t type, int64_t length) { return length / type_block[type] * type_size[type]; }

/* Where a row begins, by its indices along ne[1], ne[2] and ne[3]. */
static inline uint8_t *row_at(const struct layout *l, uint8_t *data, int64_t i1, int64_t i2, int64_t i3)
{
    return data + i1 * l->nb[1] + i2 * l->nb[2] + i3 * l->nb[3];
}

struct place {
    int64_t i1, i2, i3;
};

/* The indices of the row with a number, counted along ne[1] first. */
static inline struct place place_of(const struct layout *l, int64_t row)
{
    if (row < l->ne[1]) /* divisions cost more than a short row */
        return (struct place){row, 0, 0};
    int64_t i1 = row % l->ne[1], rest = row / l->ne[1];
    return (struct place){i1, rest % l->ne[2], rest / l->ne[2]};
}

static inline uint8_t *row_of(const struct layout *l, uint8_t *data, int64_t row)
{
    struct place p = place_of(l, row);
    return row_at(l, data, p.i1, p.i2, p.i3);
}

/* The row of a tensor that is repeated to the dimensions of another one, for the indices of that. */
static inline uint8_t *repeated_row(const struct layout *l, uint8_t *data, struct place p)
{
    int64_t i1 = p.i1 < l->ne[1] ? p.i1 : p.i1 % l->ne[1], i2 = p.i2 < l->ne[2] ? p.i2 : p.i2 % l->ne[2];
    return row_at(l, data, i1, i2, p.i3 < l->ne[3] ? p.i3 : p.i3 % l->ne[3]);
}

/* ------------------------------------------------------------------------------------------------------------- planning */

/* Add a phase of units that take one thread about so many nanoseconds each. */
static inline void add_phase(struct geometry *g, phase_function run, int64_t units, double cost)
{
    g->phase[g->phases++] = (struct phase){run, units, cost < 1 ? 1 : (int64_t)cost};
}

/* Plan a kernel of one phase whose units are the rows of the result. */
static inline bool plan_rows(struct geometry *g, phase_function run, double cost_of_element)
{
    add_phase(g, run, rows(&g->dst), g->dst.ne[0] * cost_of_element);
    return true;
}

static inline int64_t aligned(int64_t size) { return (size + 63) & ~(int64_t)63; }
