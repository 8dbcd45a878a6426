/* RWKV_WKV6, RWKV_WKV7 and GATED_LINEAR_ATTN: for each sequence and head a square state that every token reads and changes.

   Streams (k, v, r ...) and the result are contiguous: a stream is [tokens][heads][size], the result [tokens][heads][size] of
   outputs, then the final states [sequences][heads][size][size]. A unit is a head of a sequence; its state is float32. */
#pragma once
#include "elements.h"
#include "vector.h"

/* Computes one token of a head: changes the state, adds to `out`. */
typedef void (*token_function)(const struct node *node, float *state, float *out, int64_t size, int64_t head, int64_t at);

/* A vector of a row; where rows are `whole` numbers of vectors the compiler knows it, and asks nothing. */
static inline f32x16 load_of(const void *p, int64_t left, const bool whole) { return whole ? load16(p) : load_part(p, left); }
static inline void store_of(void *p, f32x16 v, int64_t left, const bool whole)
{
    if (whole)
        store16(p, v);
    else
        store_part(p, v, left);
}

/* For each vector of a row, from element j on, of which `left` are left. */
#define EACH_VECTOR(n) for (int64_t j = 0, left = (n); left > 0; j += LANES, left -= LANES)

/* Walk a head of a sequence through its tokens. */
static inline void walk(const struct node *node, int64_t unit, int state_slot, float *state, token_function token)
{
    const struct geometry *g = node->of;
    int64_t size = g->src[0].ne[0], heads = g->src[0].ne[1], sequences = g->src[state_slot].ne[1];
    int64_t tokens = g->src[0].ne[2] / sequences, sequence = unit / heads, head = unit % heads, square = 4 * size * size;
    float *out = state + size * size;
    memcpy(state, node->src[state_slot] + unit * square, (size_t)square);
    for (int64_t t = sequence * tokens; t < (sequence + 1) * tokens; t++) {
        int64_t at = (t * heads + head) * size;
        memset(out, 0, (size_t)(4 * size));
        token(node, state, out, size, head, at);
        memcpy(node->dst + 4 * at, out, (size_t)(4 * size));
    }
    memcpy(node->dst + 4 * g->src[0].ne[2] * heads * size + unit * square, state, (size_t)square);
}

static inline bool plan_recurrence(struct geometry *g, int state_slot, phase_function run)
{
    int64_t size = g->src[0].ne[0], heads = g->src[0].ne[1], sequences = g->src[state_slot].ne[1];
    g->own = 4 * (size * size + size);
    add_phase(g, run, sequences * heads, (double)(g->src[0].ne[2] / sequences) * size * size * 0.6);
    return true;
}

/* A stream's elements for a token of a head. */
static inline const f32 *stream(const struct node *node, int slot, int64_t at) { return (const f32 *)node->src[slot] + at; }
