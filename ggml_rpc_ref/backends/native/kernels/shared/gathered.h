/* Rows of F32 whose elements may lie apart: computed in scratch memory where they do. */
#pragma once
#include "elements.h"

/* A row without gaps: in place, or its copy in memory of its own. */
static inline float *gathered(const struct layout *l, uint8_t *row, float *own)
{
    if (dense_rows(l))
        return (float *)row;
    for (int64_t i = 0; i < l->ne[0]; i++)
        own[i] = *(const f32 *)(row + i * l->nb[0]);
    return own;
}

/* Put a row's elements where they belong, unless they are there. */
static inline void scatter(const struct layout *l, const float *from, uint8_t *row)
{
    if ((const uint8_t *)from != row)
        for (int64_t i = 0; i < l->ne[0]; i++)
            *(f32 *)(row + i * l->nb[0]) = from[i];
}

/* Plan a kernel of rows that need so much memory of each thread. */
static inline bool plan_gathered(struct geometry *g, phase_function run, double cost)
{
    g->own = dense_rows(&g->src[0]) && dense_rows(&g->dst) ? 0 : 4 * g->dst.ne[0];
    return plan_rows(g, run, cost);
}
