/* FLASH_ATTN_EXT: softmax(scale * Q K^T + mask) V for each head, without ever having all scores at once.

   With the largest score so far, the sum of exp(score - largest) and the weighted sum of values, each part of the keys is added by
   scaling what was there. A key that the mask hides counts for nothing, whatever it holds.

   flash_attn_ext_naive     a block for each query, a thread for each key of a part, then one for each element of the result: what the
                            others are held to, and what takes any shape
   flash_attn_ext_few_<n>   n rows of heads that share keys and values against a part of the keys (attention_few.cuh), and
   flash_attn_ext_tile_<d>  64 such rows in tensor cores, heads of up to d elements (attention_tile.cuh), where K and V that are not F16
                            go through _exponents and _halves before (attention_halves.cuh); then
   flash_attn_ext_combine   adds the parts; a row that tensor cores can't be trusted with it computes as the naive one does
*/
#include "attention_few.cuh"
#include "attention_tile.cuh"

/* A row of the result by all threads of a block. `memory` is shared: the weighted sum, dv floats, and a score for each thread. */
DEVICE void attend(const struct geometry *node, int64_t row, uint8_t *memory)
{
    __shared__ double part[MOST_WARPS];
    const struct geometry &g = *node;
    int64_t dk = g.src[0].ne[0], dv = g.src[2].ne[0], keys = g.src[1].ne[1];
    float *sum = (float *)memory, *weight = sum + dv;
    struct query q = query_of(&g, row);
    float top = -INFINITY, total = 0;
    bool seen = false;
    SHARE(i, dv) sum[i] = 0;
    for (int64_t first = 0; first < keys; first += blockDim.x) {
        int64_t key = first + threadIdx.x, count = min64(blockDim.x, keys - first);
        float bias = key < keys ? bias_of(&q, key) : -INFINITY, score = -INFINITY;
        bool hidden = bias == -INFINITY;
        if (!hidden) {
            const uint8_t *k = q.k + key * g.src[1].nb[1];
            float product = 0;
            for (int64_t i = 0; i < dk; i++)
                product = fmaf(f32_at(q.q + 4 * i), element(g.src[1].type, k, i), product);
            score = score_of(&g, product, bias);
        }
        seen |= block_max(hidden ? 0 : 1, part) > 0;
        float before = top;
        top = larger(top, block_max(score, part));
        float factor = weight_of(before, top);
        weight[threadIdx.x] = hidden ? 0 : weight_of(score, top);
        total = total * factor + (float)block_sum(weight[threadIdx.x], part);
        SHARE(i, dv) {
            float x = scaled(sum[i], factor);
            for (int64_t n = 0; n < count; n++)
                if (weight[n] != 0) /* a weight of 0 hides NaN and infinities of V */
                    x = fmaf(weight[n], element(g.src[2].type, q.v + (first + n) * g.src[2].nb[1], i), x);
            sum[i] = x;
        }
        /* the next part's weights are written behind the barriers of block_max, when all have used these */
    }
    float factor = last_factor(&g, &q, top, total, seen);
    SHARE(i, dv) *(float *)(q.dst + 4 * i) = sum[i] * factor;
}

KERNEL(flash_attn_ext_naive)
{
    DYNAMIC_SHARED(memory);
    EACH_ROW(row, rows_of(&g.dst)) attend(&g, row, memory);
}

/* ------------------------------------------------------------------------------------------------- the keys in parts */

BOUNDED_KERNEL(flash_attn_ext_few_1, FEW_THREADS, 4)
{
    DYNAMIC_SHARED(memory);
    attend_few<1>(g, memory);
}
BOUNDED_KERNEL(flash_attn_ext_few_4, FEW_THREADS, 4)
{
    DYNAMIC_SHARED(memory);
    attend_few<4>(g, memory);
}
BOUNDED_KERNEL(flash_attn_ext_few_8, FEW_THREADS, 3)
{
    DYNAMIC_SHARED(memory);
    attend_few<8>(g, memory);
}

BOUNDED_KERNEL(flash_attn_ext_exponents, EXPONENT_THREADS, 2) { find_exponents(&g); }
BOUNDED_KERNEL(flash_attn_ext_halves, HALVES_THREADS, 4) { write_halves(&g); }

KERNEL(flash_attn_ext_tile_64) { attend_tile<64, 64>(g); }
KERNEL(flash_attn_ext_tile_96) { attend_tile<96, 64>(g); }
KERNEL(flash_attn_ext_tile_128) { attend_tile<128, 64>(g); }
KERNEL(flash_attn_ext_tile_256) { attend_tile<256, 16>(g); }

#define MOST_SPLITS 512
#define COMBINING 128 /* threads */

/* The weighted sums of all parts, four elements a thread; groups of threads take turns with the parts. */
DEVICE void add_parts(const struct geometry *g, int64_t row, int splits, const float *factor, float last, uint8_t *dst)
{
    __shared__ float4 gathered[COMBINING];
    int64_t dv = g->src[2].ne[0];
    int units = (int)((dv + 7) / 8 * 2), width = units < COMBINING ? units : COMBINING, groups = COMBINING / width;
    int group = threadIdx.x / width, lane = threadIdx.x % width;
    for (int first = 0; first < units; first += width) {
        float4 sum = {0, 0, 0, 0};
        if (group < groups && first + lane < units)
#pragma unroll 4
            for (int s = group; s < splits; s += groups) {
                float4 x = ((const float4 *)sum_of(partial_of(g, s, row)))[first + lane];
                sum.x += scaled(x.x, factor[s]), sum.y += scaled(x.y, factor[s]);
                sum.z += scaled(x.z, factor[s]), sum.w += scaled(x.w, factor[s]);
            }
        gathered[threadIdx.x] = sum;
        __syncthreads(); /* all groups' sums are there */
        SHARE(i, min64(4 * width, dv - 4 * first)) {
            float x = 0;
            for (int n = 0; n < groups; n++)
                x += ((const float *)&gathered[n * width])[i];
            *(float *)(dst + 4 * (4 * first + i)) = x * last;
        }
        __syncthreads();
    }
}

/* more[2]: how many parts there are. A block of COMBINING threads for each row. Dynamic shared memory as for `attend`. */
KERNEL(flash_attn_ext_combine)
{
    __shared__ double part[MOST_WARPS];
    __shared__ float factor[MOST_SPLITS];
    DYNAMIC_SHARED(memory);
    int splits = (int)g.more[2];
    EACH_ROW(row, rows_of(&g.dst)) {
        float top = -INFINITY, strange = 0, seen = 0;
        SHARE(s, splits) {
            struct partial *p = partial_of(&g, s, row);
            top = larger(top, p->top);
            strange = p->strange ? 1 : strange;
            seen = p->seen ? 1 : seen;
        }
        if (block_max(strange, part) > 0) {
            attend(&g, row, memory);
            continue;
        }
        top = block_max(top, part);
        bool any = block_max(seen, part) > 0;
        float share = 0;
        SHARE(s, splits) {
            factor[s] = weight_of(partial_of(&g, s, row)->top, top);
            share += partial_of(&g, s, row)->total * factor[s];
        }
        float total = (float)block_sum(share, part);
        struct query q = query_of(&g, row);
        float last = last_factor(&g, &q, top, total, any);
        add_parts(&g, row, splits, factor, last, q.dst);
        /* the next row's factors are written behind the barriers of block_max */
    }
}
