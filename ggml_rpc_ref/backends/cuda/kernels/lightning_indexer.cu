/* LIGHTNING_INDEXER: the score of each key for each token: weighted, rectified products of all heads; a thread for each. */
#include "blocks.cuh"

enum { Q, KEYS, WEIGHTS, MASK };

KERNEL(lightning_indexer)
{
    const struct operand *q = &g.src[Q], *k = &g.src[KEYS];
    EACH(i, elements_of(&g.dst)) {
        struct place p = place_of(&g.dst, i);
        const uint8_t *key = at(k, 0, 0, p.i0, p.i3);
        float score = 0;
        for (int64_t head = 0; head < q->ne[1]; head++) {
            float product = 0;
            for (int64_t j = 0; j < q->ne[0]; j++)
                product = fmaf(f32_at(at(q, j, head, p.i1, p.i3)), element(k->type, key, j), product);
            product = product > 0 ? product : 0; /* a NaN counts as 0 */
            score = fmaf(product, f32_at(at(&g.src[WEIGHTS], head, p.i1, 0, p.i3)), score);
        }
        *(float *)at_place(&g.dst, p) = score + f16_at(at(&g.src[MASK], p.i0, p.i1, 0, p.i3 % g.src[MASK].ne[3]));
    }
}
