/* RWKV_WKV6, RWKV_WKV7 and GATED_LINEAR_ATTN: a square state per head that every token reads and changes.

   A thread for each row or column of a state, which no other one touches, walks through the tokens of its sequence. The state, in
   float32, is where the final one is wanted: behind the outputs of all tokens. */
#pragma once
#include "kernel.cuh"

struct walk {
    int64_t size, heads, tokens; /* tokens of a sequence */
    int64_t own, head, first;    /* this thread's value, and its head, and the first token of its sequence */
    float *state;                /* size rows of size elements */
};

/* How many threads there are: a source's S H, for each sequence. */
DEVICE int64_t walks(const struct geometry *g, int state) { return g->src[0].ne[0] * g->src[0].ne[1] * g->src[state].ne[1]; }

/* The i-th of them. */
DEVICE struct walk walk_of(const struct geometry *g, int state, int64_t i)
{
    struct walk w;
    w.size = g->src[0].ne[0];
    w.heads = g->src[0].ne[1];
    w.tokens = g->src[0].ne[2] / g->src[state].ne[1];
    w.own = i % w.size;
    w.head = i / w.size % w.heads;
    w.first = i / w.size / w.heads * w.tokens;
    w.state = (float *)g->dst.data + w.size * w.heads * g->src[0].ne[2] + i / w.size * w.size * w.size;
    return w;
}

/* Where a token's elements of the head lie in one of the streams, or in the outputs; all are contiguous. */
DEVICE int64_t offset_of(const struct walk *w, int64_t t) { return ((w->first + t) * w->heads + w->head) * w->size; }
DEVICE const float *stream_at(const struct geometry *g, int slot, int64_t offset) { return (const float *)g->src[slot].data + offset; }
DEVICE float *output_of(const struct geometry *g, const struct walk *w, int64_t t) { return (float *)g->dst.data + offset_of(w, t) + w->own; }

/* The state as it is before the first token: element k of this thread's row or column. */
DEVICE float before_all(const struct geometry *g, const struct walk *w, int state, int64_t k)
{
    return stream_at(g, state, w->state - ((const float *)g->dst.data + w->size * w->heads * g->src[0].ne[2]))[k];
}
