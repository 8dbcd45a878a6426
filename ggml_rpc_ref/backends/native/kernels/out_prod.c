/* OUT_PROD: dst[j][i] = the sum over k of src0[k][i] * src1[k][j], for each pair of matrices; src0 of any type that is read.

   A unit has eight rows of the result, so that a row of src0 is unpacked once for all of them. */
#include "blocks.h"
#include "elements.h"
#include "rowwise.h"

#define ROWS 8
#define AT_ONCE 4 /* rows of the result, and two vectors of each, stay in registers over all k */

static int64_t blocks_of_rows(const struct geometry *g) { return parts_of(g->dst.ne[1], ROWS); }

/* Some rows of the result, at most AT_ONCE, from rows of floats that lie a_step bytes apart; factor: [n][AT_ONCE]. */
static void multiply_rows(const uint8_t *a, int64_t a_step, const float *factor, int64_t n, float *const *to, int rows, int64_t length)
{
    for (int64_t i = 0, left = length; left > 0; i += 2 * LANES, left -= 2 * LANES) {
        f32x16 low[AT_ONCE] = {{0}}, high[AT_ONCE] = {{0}};
        for (int64_t k = 0; k < n; k++) {
            const uint8_t *x = a + k * a_step + 4 * i;
            f32x16 first = load_part(x, left), second = load_part(x + 4 * LANES, max64(left - LANES, 0));
            for (int j = 0; j < AT_ONCE; j++) {
                low[j] = fma16(first, splat(factor[k * AT_ONCE + j]), low[j]);
                high[j] = fma16(second, splat(factor[k * AT_ONCE + j]), high[j]);
            }
        }
        for (int j = 0; j < rows; j++) {
            store_part(to[j] + i, low[j], left);
            store_part(to[j] + i + LANES, high[j], max64(left - LANES, 0));
        }
    }
}

/* Rows of src0 that are no floats: each is unpacked for all rows of the unit in turn. */
static void unpack_and_multiply(const struct layout *a, const uint8_t *from, const float *factor, float *const *to, int rows, float *unpacked)
{
    for (int j = 0; j < rows; j++)
        memset(to[j], 0, (size_t)(4 * a->ne[0]));
    for (int64_t k = 0; k < a->ne[1]; k++) {
        dequantise_row(a->type, from + k * a->nb[1], unpacked, a->ne[0]);
        for (int j = 0; j < rows; j++) {
            f32x16 times = splat(factor[(j / AT_ONCE * a->ne[1] + k) * AT_ONCE + j % AT_ONCE]);
            MAP2(to[j], to[j], unpacked, a->ne[0], fma16(y, times, x));
        }
    }
}

static void multiply(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *a = &g->src[0], *b = &g->src[1], *dst = &g->dst;
    int64_t n = a->ne[1];
    float *factor = (float *)work->own, *unpacked = factor + ROWS * n;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t begin = unit % blocks_of_rows(g) * ROWS, matrix = unit / blocks_of_rows(g);
        int64_t i2 = matrix % dst->ne[2], i3 = matrix / dst->ne[2];
        int rows = (int)min64(ROWS, dst->ne[1] - begin);
        const uint8_t *from = row_at(a, node->src[0], 0, i2 / (dst->ne[2] / a->ne[2]), i3 / (dst->ne[3] / a->ne[3]));
        float *to[ROWS];
        for (int j = 0; j < rows; j++)
            to[j] = (float *)row_at(dst, node->dst, begin + j, i2, i3);
        for (int64_t k = 0; k < n; k++)
            for (int j = 0; j < ROWS; j++)
                factor[(j / AT_ONCE * n + k) * AT_ONCE + j % AT_ONCE] = j < rows ? f32_at(b, node->src[1], begin + j, k, i2, i3) : 0;
        if (!is_f32(a))
            unpack_and_multiply(a, from, factor, to, rows, unpacked);
        for (int j = 0; j < rows && is_f32(a); j += AT_ONCE)
            multiply_rows(from, a->nb[1], factor + j * n, n, to + j, (int)min64(AT_ONCE, rows - j), a->ne[0]);
    }
}

static bool plan(struct geometry *g)
{
    if (!can_dequantise(g->src[0].type))
        return false;
    g->own = 4 * (g->src[0].ne[0] + ROWS * g->src[0].ne[1]);
    add_phase(g, multiply, blocks_of_rows(g) * g->dst.ne[2] * g->dst.ne[3], (double)g->src[0].ne[1] * g->dst.ne[0] * ROWS / 8);
    return true;
}

KERNEL(out_prod, GGML_OP_OUT_PROD, plan);
