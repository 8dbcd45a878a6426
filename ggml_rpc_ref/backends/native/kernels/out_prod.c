/* OUT_PROD: dst[j][i] = the sum over k of src0[k][i] * src1[k][j], for each pair of matrices; src0 of any type that is read.

   A unit has eight rows of the result, so that a row of src0 is unpacked once for all of them. */
#include "blocks.h"
#include "elements.h"
#include "rowwise.h"

#define ROWS 8

static int64_t blocks_of_rows(const struct geometry *g) { return parts_of(g->dst.ne[1], ROWS); }

static void multiply(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    const struct layout *a = &g->src[0], *b = &g->src[1], *dst = &g->dst;
    float *unpacked = (float *)work->own;
    for (int64_t unit = first; unit < last; unit++) {
        int64_t begin = unit % blocks_of_rows(g) * ROWS, end = min64(begin + ROWS, dst->ne[1]), matrix = unit / blocks_of_rows(g);
        int64_t i2 = matrix % dst->ne[2], i3 = matrix / dst->ne[2];
        for (int64_t j = begin; j < end; j++)
            memset(row_at(dst, node->dst, j, i2, i3), 0, (size_t)(4 * dst->ne[0]));
        for (int64_t k = 0; k < a->ne[1]; k++) {
            dequantise_row(a->type, row_at(a, node->src[0], k, i2 / (dst->ne[2] / a->ne[2]), i3 / (dst->ne[3] / a->ne[3])), unpacked,
                           a->ne[0]);
            for (int64_t j = begin; j < end; j++) {
                float *to = (float *)row_at(dst, node->dst, j, i2, i3);
                f32x16 factor = splat(f32_at(b, node->src[1], j, k, i2, i3));
                MAP2(to, to, unpacked, dst->ne[0], fma16(y, factor, x));
            }
        }
    }
}

static bool plan(struct geometry *g)
{
    if (!can_dequantise(g->src[0].type))
        return false;
    g->own = 4 * g->src[0].ne[0];
    add_phase(g, multiply, blocks_of_rows(g) * g->dst.ne[2] * g->dst.ne[3], (double)g->src[0].ne[1] * g->dst.ne[0] * ROWS / 4);
    return true;
}

KERNEL(out_prod, GGML_OP_OUT_PROD, plan);
