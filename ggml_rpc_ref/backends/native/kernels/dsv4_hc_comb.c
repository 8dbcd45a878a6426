/* DSV4_HC_COMB: for each token a matrix of four streams, made nearly doubly stochastic; in double precision. src: mixes, scale, base. */
#include "elements.h"

#define STREAMS 4
#define FIRST (2 * STREAMS) /* where the matrix begins among a token's mixes */

/* Divide each entry by eps and the sum over the streams it goes to. */
static void divide_rows(double a[STREAMS][STREAMS], double eps)
{
    for (int s = 0; s < STREAMS; s++) {
        double sum = a[s][0] + a[s][1] + a[s][2] + a[s][3];
        for (int d = 0; d < STREAMS; d++)
            a[s][d] /= eps + sum;
    }
}

/* Divide each entry by eps and the sum over the streams it comes from. */
static void divide_columns(double a[STREAMS][STREAMS], double eps)
{
    for (int d = 0; d < STREAMS; d++) {
        double sum = a[0][d] + a[1][d] + a[2][d] + a[3][d];
        for (int s = 0; s < STREAMS; s++)
            a[s][d] /= eps + sum;
    }
}

static void soften(double row[STREAMS], double eps)
{
    double top = row[0], sum = 0;
    for (int d = 1; d < STREAMS; d++)
        top = row[d] > top ? row[d] : top;
    for (int d = 0; d < STREAMS; d++)
        sum += row[d] = exp(row[d] - top);
    for (int d = 0; d < STREAMS; d++)
        row[d] = row[d] / sum + eps;
}

static void combine_tokens(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    (void)work;
    const struct geometry *g = node->of;
    double eps = dsv4_hc_comb_eps(g), factor = f32_at(&g->src[1], node->src[1], 2, 0, 0, 0), a[STREAMS][STREAMS];
    for (int64_t token = first; token < last; token++) {
        for (int i = 0; i < STREAMS * STREAMS; i++) {
            float logit = (float)(f32_at(&g->src[0], node->src[0], FIRST + i, token, 0, 0) * factor +
                                  f32_at(&g->src[2], node->src[2], FIRST + i, 0, 0, 0));
            a[i / STREAMS][i % STREAMS] = logit;
        }
        for (int s = 0; s < STREAMS; s++)
            soften(a[s], eps);
        divide_columns(a, eps);
        for (int round = 1; round < dsv4_hc_comb_n_iter(g); round++) {
            divide_rows(a, eps);
            divide_columns(a, eps);
        }
        for (int i = 0; i < STREAMS * STREAMS; i++)
            *(f32 *)element(&g->dst, node->dst, i % STREAMS, i / STREAMS, token, 0) = (float)a[i / STREAMS][i % STREAMS];
    }
}

static bool plan(struct geometry *g)
{
    add_phase(g, combine_tokens, g->dst.ne[2], 150 + 60.0 * dsv4_hc_comb_n_iter(g));
    return true;
}

KERNEL(dsv4_hc_comb, GGML_OP_DSV4_HC_COMB, plan);
