/* FLASH_ATTN_EXT for many queries: 64 rows of heads that share keys and values, in tensor cores. K and V are F16, or were made so
   (attention_halves.cuh).

   Each of four warps has sixteen rows: their queries, rounded to F16, and their weighted sums stay in registers. K and V come to shared
   memory some keys at a time, one of them while the warps compute with the other. Scores leave the tensor cores as the next product
   wants them, so weights never pass through memory:

       S = Q K^T        a lane has scores of rows g and g + 8, keys 2t and 2t + 1 of each eight (mma.cuh)
       O = O f + P V    P: exp(S - top) times 2^15, which F16 holds down to 2^-39 of the largest

   A row of queries is divided by a power of two so that its largest number fits F16. Numbers that are not finite would spread in a matrix
   product, where a weight of 0 must hide them: a row with such a score, and all rows that meet such a value, are left to
   flash_attn_ext_combine, which computes them by themselves. */
#pragma once
#include "async.cuh"
#include "attention_halves.cuh"
#include "mma.cuh"

#define TILE_ROWS 64
#define TILE_THREADS 128
#define TILE_GAP 8 /* between rows in shared memory, so that eight of them lie in different banks */
#define LOG2_E 1.44269504f
#define RAISED 15 /* weights are raised by 2^15 */

/* Keys, or values, in shared memory; D elements of each, zeros where there are none. */
template <int D> struct rows_of_tile {
    uint16_t at[D + TILE_GAP];
};

/* For each piece of eight elements of a tile that is this thread's: its row, its place in the row. */
#define EACH_PIECE(D, KEYS, row, piece)                                                                                   \
    _Pragma("unroll 1") for (int i = threadIdx.x, row = i / (D / 8), piece = i % (D / 8); i < KEYS * (D / 8);                                 \
         i += TILE_THREADS, row = i / (D / 8), piece = i % (D / 8))

/* Begin to copy KEYS rows of K or V. `whole`: all rows lie at multiples of 16 bytes. */
template <int D, int KEYS>
DEVICE void begin_tile(const struct operand *t, const uint8_t *head, int first, int end, bool whole, struct rows_of_tile<D> *to)
{
    EACH_PIECE(D, KEYS, row, piece)
    {
        uint16_t *there = &to[row].at[8 * piece];
        const uint8_t *from = head + (first + row) * t->nb[1] + 16 * piece;
        if (first + row >= end || 8 * piece >= t->ne[0])
            memset(there, 0, 16);
        else if (whole)
            copy_later(there, from);
        else
            for (int k = 0; k < 8; k++)
                there[k] = *(const uint16_t *)(from + 2 * k);
    }
}

/* Whether any of the values that this thread has copied is not finite; 0 takes its place. */
template <int D, int KEYS> DEVICE bool clear_strange(struct rows_of_tile<D> *values)
{
    bool any = false;
    EACH_PIECE(D, KEYS, row, piece)
    {
        uint4 *p = (uint4 *)&values[row].at[8 * piece];
        uint4 w = *p;
        const uint32_t *word = &w.x;
        uint32_t carried = 0; /* an exponent of ones carries into the sign */
        for (int k = 0; k < 4; k++)
            carried |= (word[k] & 0x7FFF7FFFu) + 0x04000400u;
        if (carried & 0x80008000u) {
            *p = {0, 0, 0, 0};
            any = true;
        }
    }
    return any;
}

/* What a lane needs of a row: its mask and slope; and what its queries were divided by. */
struct tile_row {
    const uint8_t *mask;
    float slope, factor;
    bool there;
};

/* What is added to the scores of a lane's keys, as halves: two keys in a word. */
template <int KEYS> struct tile_mask {
    uint32_t pair[2][KEYS / 8];
};

#define HIDDEN 0xFC00u

template <int KEYS>
DEVICE void read_mask(struct tile_mask<KEYS> *m, const struct tile_row *row, int first, int end, bool even)
{
    int t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
            int key = first + 8 * n + 2 * t;
            const uint16_t *p = (const uint16_t *)row[r].mask + key;
            uint32_t low = HIDDEN, high = HIDDEN;
            if (row[r].there && key + 1 < end) {
                if (!row[r].mask)
                    low = high = 0;
                else if (even)
                    low = *(const uint32_t *)p, high = low >> 16, low &= 0xFFFF;
                else
                    low = p[0], high = p[1];
            } else if (row[r].there && key < end) {
                low = row[r].mask ? p[0] : 0;
            }
            m->pair[r][n] = low | high << 16;
        }
}

/* What is added to a score; -inf: the key is hidden. Keys that are not there are, whatever the slope. */
DEVICE float bias_in(uint32_t pair, int high, float slope)
{
    uint16_t half = (uint16_t)(high ? pair >> 16 : pair);
    return half == HIDDEN ? -INFINITY : slope * from_half(half);
}

/* Whether any key of a tile is not hidden, of any row of the block. */
template <int KEYS> DEVICE bool tile_is_shown(const struct tile_row *row, int first, int end, bool even, int *shown)
{
    struct tile_mask<KEYS> m;
    read_mask<KEYS>(&m, row, first, end, even);
    bool any = false;
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            any |= m.pair[r][n] != (HIDDEN | HIDDEN << 16);
    any = __any_sync(ALL, any);
    __syncthreads(); /* what was said of the last tile has been read */
    if (threadIdx.x % WARP == 0)
        shown[threadIdx.x / WARP] = any;
    __syncthreads();
    return shown[0] | shown[1] | shown[2] | shown[3];
}

/* Round the queries of a warp's sixteen rows to F16, into shared memory; what they were divided by goes to `factor`. */
template <int D>
DEVICE void stage_queries(const struct geometry *g, int64_t from, int count, struct rows_of_tile<D> *to, float *factor)
{
    int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * 16;
    int64_t dk = g->src[0].ne[0];
    for (int r = first; r < first + 16; r++) {
        const uint8_t *q = r < count ? query_of(g, row_of_group(g, blockIdx.y, from + r)).q : NULL;
        float most = 0;
        for (int i = lane; q && i < dk; i += WARP) {
            float x = fabsf(f32_at(q + 4 * i));
            most = larger(most, x < INFINITY ? x : 0);
        }
        most = warp_max(most);
        /* no lower than the least power of two of full precision */
        int exponent = most > 0 ? ilogbf(most) - 14 : 0;
        exponent = exponent < -126 ? -126 : exponent;
        for (int i = lane; i < D; i += WARP)
            to[r].at[i] = q && i < dk ? to_half(ldexpf(f32_at(q + 4 * i), -exponent)) : 0;
        if (lane == 0)
            factor[r] = ldexpf(1, exponent);
    }
}

/* S = Q K^T for a warp's rows and KEYS keys. */
template <int D, int KEYS>
DEVICE void multiply_tile(const uint32_t (*q)[4], const struct rows_of_tile<D> *keys, float (*s)[4])
{
    int lane = threadIdx.x % WARP, row = lane / 16 * 8 + lane % 8, column = lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[n][i] = s[n + 1][i] = 0;
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            uint32_t b[4];
            load_matrices(b, &keys[8 * n + row].at[16 * step + column]);
            mma_f16(s[n], q[step], b);
            mma_f16(s[n + 1], q[step], b + 2);
        }
    }
}

/* O += P V. */
template <int D, int KEYS>
DEVICE void add_tile(const float (*p)[4], const struct rows_of_tile<D> *values, float (*o)[4])
{
    int lane = threadIdx.x % WARP, row = lane % 16, column = lane / 16 * 8;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        uint32_t a[4] = {
            two_halves(p[2 * step][0], p[2 * step][1]), two_halves(p[2 * step][2], p[2 * step][3]),
            two_halves(p[2 * step + 1][0], p[2 * step + 1][1]), two_halves(p[2 * step + 1][2], p[2 * step + 1][3]),
        };
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_transposed(b, &values[16 * step + row].at[8 * n + column]);
            mma_f16(o[n], a, b);
            mma_f16(o[n + 1], a, b + 2);
        }
    }
}

/* The running softmax of a lane's two rows: `total` is this lane's share of the sum. */
struct tile_softmax {
    float top[2], total[2];
    bool strange[2];
};

/* Turn a lane's products into weights; `change`: what earlier sums are multiplied with. */
template <int KEYS>
DEVICE void weigh_tile(const struct geometry *g, struct tile_softmax *state, const struct tile_row *row, const struct tile_mask<KEYS> *m,
                       float (*s)[4], float *change)
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = -INFINITY, sum = 0;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float *x = &s[n][2 * r + i], bias = bias_in(m->pair[r][n], i, row[r].slope);
                *x = bias == -INFINITY ? -INFINITY : score_of(g, *x * row[r].factor, bias);
                state->strange[r] |= bias != -INFINITY && !(fabsf(*x) < INFINITY);
                most = larger(most, *x);
            }
        most = larger(most, __shfl_xor_sync(ALL, most, 1));
        most = larger(most, __shfl_xor_sync(ALL, most, 2));
        float top = larger(state->top[r], most), base = top == -INFINITY ? 0 : top;
        change[r] = exp2f((state->top[r] - base) * LOG2_E);
        state->top[r] = top;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float w = exp2f(fmaf(s[n][2 * r + i] - base, LOG2_E, RAISED));
                s[n][2 * r + i] = w;
                sum += w;
            }
        state->total[r] = state->total[r] * change[r] + sum;
    }
}

/* Leave a lane's two rows to flash_attn_ext_combine; `unit`: what values were divided by. */
template <int D>
DEVICE void leave_rows(const struct geometry *g, const struct tile_softmax *state, const struct tile_row *row, bool strange, int part,
                       int64_t first, const float (*o)[4], float unit)
{
    int lane = threadIdx.x % WARP, t = lane % 4;
    const float lowered = 1.0f / (1 << RAISED);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float total = state->total[r];
        int odd = state->strange[r] || strange;
        for (int step = 1; step < 4; step *= 2) {
            total += __shfl_xor_sync(ALL, total, step);
            odd |= __shfl_xor_sync(ALL, odd, step);
        }
        if (!row[r].there)
            continue;
        struct partial *p = partial_of(g, part, row_of_group(g, blockIdx.y, first + lane / 4 + 8 * r));
        if (t == 0)
            *p = {state->top[r], total * lowered, state->top[r] > -INFINITY, odd};
#pragma unroll
        for (int n = 0; n < D / 8; n++)
            if (8 * n < g->src[2].ne[0])
                *(float2 *)(sum_of(p) + 8 * n + 2 * t) = {o[n][2 * r] * lowered * unit, o[n][2 * r + 1] * lowered * unit};
    }
}

/* A matrix of K or V as F16, and what its numbers were divided by. */
struct matrix_of_halves {
    const uint8_t *data;
    float unit;
};

DEVICE struct matrix_of_halves matrix_for(const struct geometry *g, const struct halves *h, int64_t row)
{
    const struct operand *q = &g->src[0];
    int64_t m2 = row % q->ne[2] / (q->ne[2] / h->t.ne[2]), m3 = row / q->ne[2] / q->ne[1] / (q->ne[3] / h->t.ne[3]);
    return {at(&h->t, 0, 0, m2, m3), h->exponents ? ldexpf(1, h->exponents[m2 + h->t.ne[2] * m3]) : 1};
}

/* more[0]: keys of a part, a multiple of KEYS; more[1]: heads that share keys and values; more[2]: parts; more[3]: attention_halves.cuh.
   Blocks along x: parts, of one batch of 64 rows after the other; along y: groups. */
template <int D, int KEYS> DEVICE void attend_tile(const struct geometry &g)
{
    /* keys, then values; before that, the queries */
    __shared__ __align__(16) struct rows_of_tile<D> keys[2 * KEYS > TILE_ROWS ? 2 * KEYS : TILE_ROWS];
    __shared__ float factor[TILE_ROWS];
    __shared__ int shown[TILE_THREADS / WARP], odd;
    struct rows_of_tile<D> *values = keys + KEYS;
    const struct operand *mask = &g.src[3];
    int splits = (int)g.more[2], part = blockIdx.x % splits;
    int64_t from = (int64_t)(blockIdx.x / splits) * TILE_ROWS;
    int count = (int)min64(TILE_ROWS, g.src[0].ne[1] * g.more[1] - from);
    int begin = part * (int)g.more[0], end = (int)min64(g.src[1].ne[1], begin + g.more[0]);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    bool works = warp * 16 < count;
    bool even = (((uint64_t)mask->data | (uint64_t)mask->nb[1] | (uint64_t)mask->nb[2] | (uint64_t)mask->nb[3]) & 3) == 0;
    if (*g.outcome)
        return;
    stage_queries<D>(&g, from, count, keys, factor);
    if (threadIdx.x == 0)
        odd = 0;
    __syncthreads();
    uint32_t q[D / 16][4];
#pragma unroll
    for (int step = 0; step < D / 16; step++)
        load_matrices(q[step], &keys[16 * warp + lane % 16].at[16 * step + lane / 16 * 8]);
    const struct halves k = halves_of(&g, 1), v = halves_of(&g, 2);
    const bool k_whole = rows_are_aligned(&k.t), v_whole = rows_are_aligned(&v.t);
    const struct matrix_of_halves all_keys = matrix_for(&g, &k, row_of_group(&g, blockIdx.y, from));
    const struct matrix_of_halves all_values = matrix_for(&g, &v, row_of_group(&g, blockIdx.y, from));
    struct tile_row row[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int mine = warp * 16 + lane / 4 + 8 * r;
        struct query found = query_of(&g, row_of_group(&g, blockIdx.y, from + min64(mine, count - 1)));
        row[r] = {found.mask, found.slope, factor[mine] * all_keys.unit, mine < count};
    }
    if (present(mask)) { /* what is hidden from all rows at both ends: behind a query, another sequence's, not yet filled */
        while (begin < end && !tile_is_shown<KEYS>(row, begin, end, even, shown))
            begin += KEYS;
        while (begin < end && !tile_is_shown<KEYS>(row, begin + (end - begin - 1) / KEYS * KEYS, end, even, shown))
            end = begin + (end - begin - 1) / KEYS * KEYS;
    }
    /* a slope of 0 makes NaN of -inf */
    struct tile_softmax state = {{-INFINITY, -INFINITY}, {0, 0}, {row[0].slope == 0, row[1].slope == 0}};
    float o[D / 8][4] = {}, s[KEYS / 8][4], change[2];
    __syncthreads(); /* the queries have been read */
    begin_tile<D, KEYS>(&k.t, all_keys.data, begin, end, k_whole, keys);
    for (int first = begin; first < end; first += KEYS) {
        struct tile_mask<KEYS> m;
        read_mask<KEYS>(&m, row, first, end, even);
        wait_for_copies();
        __syncthreads(); /* the keys are there; the last values have been used */
        begin_tile<D, KEYS>(&v.t, all_values.data, first, end, v_whole, values);
        if (works) {
            multiply_tile<D, KEYS>(q, keys, s);
            weigh_tile<KEYS>(&g, &state, row, &m, s, change);
        }
        wait_for_copies();
        if (clear_strange<D, KEYS>(values))
            odd = 1;
        __syncthreads(); /* the values are there; the keys have been used */
        if (first + KEYS < end)
            begin_tile<D, KEYS>(&k.t, all_keys.data, first + KEYS, end, k_whole, keys);
        if (works) {
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    o[n][i] *= change[i / 2];
            add_tile<D, KEYS>(s, values, o);
        }
    }
    wait_for_copies(); /* of a part without keys */
    __syncthreads();
    leave_rows<D>(&g, &state, row, odd != 0, part, from + warp * 16, o, all_values.unit);
}
