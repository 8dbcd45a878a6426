/* Kernels of one operand that compute each element by itself in float32: a file defines FUNCTION(x), which may read the parameters
   of the geometry g, or VECTOR_FUNCTION(x) of several, or the first for other types than F32 alone, and includes this. F32, F16 and BF16, rounded once to dst's type. */
#include "pieces.h"

static void compute_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    float value[PIECE];
    for (int64_t row = first; row < last; row++) {
        const uint8_t *from = row_of(&g->src[0], node->src[0], row);
        uint8_t *to = row_of(&g->dst, node->dst, row);
#if defined(VECTOR_FUNCTION)
        if (is_f32(&g->src[0]) && is_f32(&g->dst)) {
            MAP1((float *)to, (const float *)from, g->dst.ne[0], VECTOR_FUNCTION(x));
            continue;
        }
#endif
        for (int64_t i = 0; i < g->dst.ne[0]; i += PIECE) {
            int64_t n = min64(PIECE, g->dst.ne[0] - i);
            read_piece(&g->src[0], from, i, n, value);
#if defined(FUNCTION)
            for (int64_t k = 0; k < n; k++)
                value[k] = FUNCTION(value[k]);
#else
            MAP1(value, value, n, VECTOR_FUNCTION(x));
#endif
            write_piece(&g->dst, to, i, n, value);
        }
    }
}

static bool plan(struct geometry *g)
{
    return is_float(&g->src[0]) && is_float(&g->dst) && dense_rows(&g->src[0]) && dense_rows(&g->dst) &&
           plan_rows(g, compute_rows, NANOSECONDS);
}
