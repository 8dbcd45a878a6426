/* FLASH_ATTN_EXT for few queries: up to eight rows of heads that share keys and values, against a part of the keys.

   Tokens are generated so, one query a head: nearly all of the time goes into reading keys and values. What that means for a block:

   - heads that share a head of K and V are its rows, so both are read once for all of them;
   - the keys are divided among as many blocks as a GPU holds at a time; their parts are added by flash_attn_ext_combine;
   - keys are taken 64 at a time. Eight threads share a key and load 16 bytes each (of F16), so they read 128 bytes that lie together;
     each thread has four keys, whose loads are all under way at once: 64 bytes a thread, 8 KiB a block. Values likewise, where
     the threads share the elements of a value;
   - 4.3 TB/s are 33 bytes in a nanosecond for each of 132 multiprocessors, about 23 KiB under way where memory answers after 700 ns. Four
     blocks of at most 128 registers a thread fit, 32 KiB of loads; and each block has the next 64 keys and values brought to the L2
     cache before it computes with these, another 32 KiB a block for F16 heads of 128 elements. With eight rows, whose sums take
     more registers, three blocks fit, and a thread has two loads under way: 12 KiB, and what is asked for in advance.

   These numbers are counted, not measured. A score is summed in float32, so nothing is rounded but by the types themselves. */
#pragma once
#include "async.cuh"
#include "attention.cuh"
#include "eights.cuh"

#define KEYS_AT_ONCE 64
#define FEW_THREADS 128
#define TO_A_KEY 8 /* threads that share a key */
#define LOADS(rows) ((rows) > 4 ? 2 : 4) /* keys, or values, that a thread has under way: registers for eight rows leave few */

typedef void eight_of(const struct operand *, const uint8_t *row, int unit, float *x);

/* How types are read that have no function of their own: by a block of one row. Plain ones that lie anyhow, by any. */
template <int ROWS> DEVICE void other_eight(const struct operand *t, const uint8_t *row, int unit, float *x)
{
    ROWS == 1 ? eight_any(t, row, unit, x) : eight_plain(t, row, unit, x);
}

/* Row `key` of a head of K or V; the last one of the part for keys behind it, which may not be there. */
DEVICE const uint8_t *row_of_key(const struct operand *t, const uint8_t *head, int key, int end)
{
    return head + (key < end ? key : end - 1) * t->nb[1];
}

/* The products of all rows with 64 keys. `queries`: `length` floats for each row, zeros behind its end. */
template <eight_of eight, int ROWS>
DEVICE void multiply_keys(const struct operand *k, const uint8_t *head, int first, int end, const float *queries, int length,
                          float (*score)[ROWS])
{
    constexpr int COUNT = LOADS(ROWS), SLOTS = FEW_THREADS / TO_A_KEY;
    int lane = threadIdx.x % TO_A_KEY;
#pragma unroll 1
    for (int slot = threadIdx.x / TO_A_KEY; slot < KEYS_AT_ONCE; slot += COUNT * SLOTS) {
        float product[COUNT][ROWS] = {};
#pragma unroll 1
        for (int unit = lane; unit < length / 8; unit += TO_A_KEY) {
            float x[COUNT][8];
#pragma unroll
            for (int u = 0; u < COUNT; u++)
                eight(k, row_of_key(k, head, first + slot + u * SLOTS, end), unit, x[u]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float4 *q = (const float4 *)(queries + r * length + 8 * unit);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float4 four = q[half];
                    float y[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                    for (int u = 0; u < COUNT; u++)
#pragma unroll
                        for (int i = 0; i < 4; i++)
                            product[u][r] = fmaf(x[u][4 * half + i], y[i], product[u][r]);
                }
            }
        }
#pragma unroll
        for (int u = 0; u < COUNT; u++)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float sum = product[u][r];
#pragma unroll
                for (int step = TO_A_KEY / 2; step; step /= 2)
                    sum += __shfl_xor_sync(ALL, sum, step);
                if (lane == (u * ROWS + r) % TO_A_KEY)
                    score[slot + u * SLOTS][r] = sum;
            }
    }
}

/* Scale what was summed, and add 64 values by their weights. Threads share a value's `units` of eight elements. */
template <eight_of eight, int ROWS>
DEVICE void add_values(const struct operand *v, const uint8_t *head, int first, int end, int units, const float (*weight)[ROWS],
                       const float *change, float (*sum)[8])
{
    constexpr int COUNT = LOADS(ROWS);
    int unit = threadIdx.x % units, group = threadIdx.x / units, groups = FEW_THREADS / units;
#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum[r][i] = scaled(sum[r][i], change[r]);
    if (group >= groups)
        return;
#pragma unroll 1
    for (int key = group; key < KEYS_AT_ONCE; key += COUNT * groups) {
        float x[COUNT][8];
#pragma unroll
        for (int u = 0; u < COUNT; u++)
            eight(v, row_of_key(v, head, first + key + u * groups, end), unit, x[u]);
#pragma unroll
        for (int u = 0; u < COUNT; u++) {
            int n = key + u * groups;
            if (n >= KEYS_AT_ONCE)
                break;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float w = weight[n][r];
                if (w != 0) /* a weight of 0 hides NaN and infinities of V */
#pragma unroll
                    for (int i = 0; i < 8; i++)
                        sum[r][i] = fmaf(w, x[u][i], sum[r][i]);
            }
        }
    }
}

/* Have 64 keys or values brought to the L2 cache. */
DEVICE void ask_for_rows(const struct operand *t, const uint8_t *head, int first, int end)
{
    int size = (int)(t->ne[0] / type_block[t->type] * type_size[t->type]), lines = (size + 127) / 128;
    for (int i = threadIdx.x; i < KEYS_AT_ONCE * lines; i += FEW_THREADS)
        ask_for(row_of_key(t, head, first + i % KEYS_AT_ONCE, end) + min64(i / KEYS_AT_ONCE * 128, size - 1));
}

/* What the scores of 64 keys are changed by, of all rows; a thread has a share of it in registers until all have used what was before. */
template <int ROWS> struct biases {
    float mine[(KEYS_AT_ONCE * ROWS + FEW_THREADS - 1) / FEW_THREADS];
};

template <int ROWS>
DEVICE void read_biases(struct biases<ROWS> *b, const struct query *row, int count, int first, int end)
{
#pragma unroll
    for (int n = 0; n < (int)(sizeof b->mine / sizeof b->mine[0]); n++) {
        int i = threadIdx.x + n * FEW_THREADS, r = i / KEYS_AT_ONCE;
        int key = first + i % KEYS_AT_ONCE;
        b->mine[n] = r < count && key < end ? bias_of(&row[r], key) : -INFINITY;
    }
}

/* To shared memory; and whether a key of any row is not hidden, a word for each warp. */
template <int ROWS> DEVICE void write_biases(const struct biases<ROWS> *b, float (*bias)[ROWS], int *shown)
{
    bool any = false;
#pragma unroll
    for (int n = 0; n < (int)(sizeof b->mine / sizeof b->mine[0]); n++) {
        int i = threadIdx.x + n * FEW_THREADS;
        any |= b->mine[n] != -INFINITY;
        if (i < KEYS_AT_ONCE * ROWS)
            bias[i % KEYS_AT_ONCE][i / KEYS_AT_ONCE] = b->mine[n];
    }
    any = __any_sync(ALL, any);
    if (threadIdx.x % WARP == 0)
        shown[threadIdx.x / WARP] = any;
}

/* A row's running maximum and sum, and whether any key was not hidden; in shared memory, for the warp that it belongs to. */
struct softmax {
    float top, total;
    int seen;
};

/* Turn a row's 64 scores into weights, by one warp; `change` becomes what earlier sums are multiplied with. */
template <int ROWS>
DEVICE void weigh(const struct geometry *g, struct softmax *row, float (*score)[ROWS], const float (*bias)[ROWS], int r, float *change)
{
    float s[KEYS_AT_ONCE / WARP], most = -INFINITY, sum = 0, before = row->top;
    bool hidden[KEYS_AT_ONCE / WARP], any = false;
#pragma unroll
    for (int n = 0; n < KEYS_AT_ONCE / WARP; n++) {
        int key = threadIdx.x % WARP + n * WARP;
        hidden[n] = bias[key][r] == -INFINITY;
        s[n] = hidden[n] ? -INFINITY : score_of(g, score[key][r], bias[key][r]);
        most = larger(most, s[n]);
        any |= !hidden[n];
    }
    float top = larger(before, warp_max(most));
#pragma unroll
    for (int n = 0; n < KEYS_AT_ONCE / WARP; n++) {
        float w = hidden[n] ? 0 : weight_of(s[n], top);
        score[threadIdx.x % WARP + n * WARP][r] = w;
        sum += w;
    }
    sum = warp_sum(sum);
    any = __any_sync(ALL, any); /* behind which all lanes have read what the first one writes */
    if (threadIdx.x % WARP == 0) {
        *change = weight_of(before, top);
        *row = {top, row->total * *change + sum, row->seen | any};
    }
}

/* more[0]: keys of a part, a multiple of 64; more[1]: heads that share keys and values; more[2]: parts. Blocks along x: parts, of one
   batch of ROWS rows after the other; along y: groups. `memory` is shared, for the rows' queries. */
template <int ROWS> DEVICE void attend_few(const struct geometry &g, uint8_t *memory)
{
    constexpr int WARPS = FEW_THREADS / WARP;
    __shared__ __align__(16) float score[KEYS_AT_ONCE][ROWS], bias[KEYS_AT_ONCE][ROWS], gathered[FEW_THREADS * 8];
    __shared__ float change[ROWS];
    __shared__ struct softmax state[ROWS];
    __shared__ struct query row[ROWS];
    __shared__ int shown[WARPS];
    float *queries = (float *)memory;
    const struct operand *k = &g.src[1], *v = &g.src[2];
    int splits = (int)g.more[2], part = blockIdx.x % splits;
    int64_t from = (int64_t)(blockIdx.x / splits) * ROWS;
    int count = (int)min64(ROWS, g.src[0].ne[1] * g.more[1] - from);
    int begin = part * (int)g.more[0], end = (int)min64(k->ne[1], begin + g.more[0]);
    int length = (int)((k->ne[0] + 7) / 8 * 8), units = (int)((v->ne[0] + 7) / 8), warp = threadIdx.x / WARP;
    struct biases<ROWS> next;
    float sum[ROWS][8] = {};
    if (*g.outcome)
        return;
    if (threadIdx.x < ROWS) {
        row[threadIdx.x] = query_of(&g, row_of_group(&g, blockIdx.y, from + min64(threadIdx.x, count - 1)));
        state[threadIdx.x] = {-INFINITY, 0, 0};
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * length; i += FEW_THREADS)
        queries[i] = i / length < count && i % length < k->ne[0] ? f32_at(row[i / length].q + 4 * (i % length)) : 0;
    read_biases<ROWS>(&next, row, count, begin, end);
    for (int first = begin; first < end; first += KEYS_AT_ONCE) {
        write_biases<ROWS>(&next, bias, shown);
        __syncthreads(); /* queries and biases are there, and the last weights have been used */
        bool any = false;
        for (int w = 0; w < WARPS; w++)
            any |= shown[w] != 0;
        if (any) {
            if (first + KEYS_AT_ONCE < end) {
                ask_for_rows(k, row[0].k, first + KEYS_AT_ONCE, end);
                ask_for_rows(v, row[0].v, first + KEYS_AT_ONCE, end);
            }
#define MULTIPLY(TYPE, name)                                                                                              \
    case GGML_TYPE_##TYPE: multiply_keys<eight_##name, ROWS>(k, row[0].k, first, end, queries, length, score); break;
            switch (eights_of(k)) {
                EIGHT_TYPES(MULTIPLY)
            default: multiply_keys<other_eight<ROWS>, ROWS>(k, row[0].k, first, end, queries, length, score);
            }
        }
        __syncthreads(); /* all scores are there; `shown` has been read */
        if (any) {
            for (int r = warp; r < ROWS; r += WARPS)
                weigh<ROWS>(&g, &state[r], score, bias, r, &change[r]);
            __syncthreads(); /* all weights are there */
        }
        read_biases<ROWS>(&next, row, count, first + KEYS_AT_ONCE, end);
        if (any)
#define ADD(TYPE, name)                                                                                                   \
    case GGML_TYPE_##TYPE: add_values<eight_##name, ROWS>(v, row[0].v, first, end, units, score, change, sum); break;
            switch (eights_of(v)) {
                EIGHT_TYPES(ADD)
            default: add_values<other_eight<ROWS>, ROWS>(v, row[0].v, first, end, units, score, change, sum);
            }
    }
    __syncthreads();
    if ((int)threadIdx.x < count) {
        struct partial left = {state[threadIdx.x].top, state[threadIdx.x].total, state[threadIdx.x].seen, 0};
        *partial_of(&g, part, row_of_group(&g, blockIdx.y, from + threadIdx.x)) = left;
    }
    int groups = FEW_THREADS / units;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= count)
            break;
        if ((int)threadIdx.x < groups * units)
#pragma unroll
            for (int i = 0; i < 8; i++)
                gathered[threadIdx.x * 8 + i] = sum[r][i];
        __syncthreads();
        float *to = sum_of(partial_of(&g, part, row_of_group(&g, blockIdx.y, from + r)));
        SHARE(i, v->ne[0]) {
            float x = 0;
            for (int n = 0; n < groups; n++)
                x += gathered[n * units * 8 + i];
            to[i] = x;
        }
        __syncthreads();
    }
}
