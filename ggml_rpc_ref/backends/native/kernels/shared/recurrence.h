/* RWKV_WKV6, RWKV_WKV7 and GATED_LINEAR_ATTN: for each sequence and head a square state that every token reads and changes.

   Streams (k, v, r ...) and the result are contiguous: a stream is [tokens][heads][size], the result [tokens][heads][size] of
   outputs, then the final states [sequences][heads][size][size]. A unit is a head of a sequence; its state is held in double
   precision. */
#pragma once
#include "elements.h"
#include "vector.h" /* compiled for each set of instructions: the loops over a state's rows are worth it */

/* Computes one token of a head: changes the state, adds to `out`. */
typedef void (*token_function)(const struct node *node, double *state, double *out, int64_t size, int64_t head, int64_t at);

/* Walk a head of a sequence through its tokens. */
static inline void walk(const struct node *node, int64_t unit, int state_slot, double *state, token_function token)
{
    const struct geometry *g = node->of;
    int64_t size = g->src[0].ne[0], heads = g->src[0].ne[1], sequences = g->src[state_slot].ne[1];
    int64_t tokens = g->src[0].ne[2] / sequences, sequence = unit / heads, head = unit % heads;
    double *out = state + size * size;
    const f32 *start = (const f32 *)node->src[state_slot] + unit * size * size;
    for (int64_t i = 0; i < size * size; i++)
        state[i] = start[i];
    for (int64_t t = sequence * tokens; t < (sequence + 1) * tokens; t++) {
        int64_t at = (t * heads + head) * size;
        for (int64_t j = 0; j < size; j++)
            out[j] = 0;
        token(node, state, out, size, head, at);
        for (int64_t j = 0; j < size; j++)
            ((f32 *)node->dst)[at + j] = (float)out[j];
    }
    f32 *end = (f32 *)node->dst + g->src[0].ne[2] * heads * size + unit * size * size;
    for (int64_t i = 0; i < size * size; i++)
        end[i] = (float)state[i];
}

static inline bool plan_recurrence(struct geometry *g, int state_slot, phase_function run)
{
    int64_t size = g->src[0].ne[0], heads = g->src[0].ne[1], sequences = g->src[state_slot].ne[1];
    g->own = 8 * (size * size + size);
    add_phase(g, run, sequences * heads, (double)(g->src[0].ne[2] / sequences) * size * size * 1.5);
    return true;
}

/* A stream's elements for a token of a head. */
static inline const f32 *stream(const struct node *node, int slot, int64_t at) { return (const f32 *)node->src[slot] + at; }
