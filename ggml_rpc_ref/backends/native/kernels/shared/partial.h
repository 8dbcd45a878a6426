/* One number of a whole tensor: phase 1 adds up some rows in each unit, phase 2 the sums of all units, in order, so that the result
   is the same however the units are shared out. */
#pragma once
#include "elements.h"

/* Rows of a unit. */
static inline int64_t rows_of_unit(const struct layout *l) { return max64(1, 4096 / max64(1, l->ne[0])); }

static inline int64_t units_of(const struct layout *l) { return l->ne[0] ? parts_of(rows(l), rows_of_unit(l)) : 0; }

/* Where a unit's sum is, of eight bytes. */
static inline void *partial_at(const struct work *work, int64_t unit) { return work->shared + 8 * unit; }

static inline bool plan_partial(struct geometry *g, phase_function partial, phase_function total, double cost)
{
    const struct layout *l = &g->src[0];
    g->shared = 8 * units_of(l);
    if (units_of(l))
        add_phase(g, partial, units_of(l), (double)rows_of_unit(l) * l->ne[0] * cost);
    add_phase(g, total, 1, (double)units_of(l));
    return true;
}
