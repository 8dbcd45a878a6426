/* GATED_LINEAR_ATTN: a state per head that decays by a gate per key and accumulates key times value; a thread for each value, see
   recurrence.cuh. */
#include "recurrence.cuh"

enum { K, V, Q, GATE, STATE };

KERNEL(gated_linear_attn)
{
    float scale = gated_linear_attn_scale(&g);
    EACH(number, walks(&g, STATE)) {
        struct walk w = walk_of(&g, STATE, number);
        for (int64_t i = 0; i < w.size; i++)
            w.state[i * w.size + w.own] = before_all(&g, &w, STATE, i * w.size + w.own);
        for (int64_t t = 0; t < w.tokens; t++) {
            int64_t token = offset_of(&w, t);
            const float *k = stream_at(&g, K, token), *q = stream_at(&g, Q, token), *gate = stream_at(&g, GATE, token);
            float v = stream_at(&g, V, token)[w.own], out = 0;
            for (int64_t i = 0; i < w.size; i++) {
                float *state = w.state + i * w.size + w.own;
                *state = fmaf(*state, gate[i], k[i] * v);
                out = fmaf(q[i] * scale, *state, out);
            }
            *output_of(&g, &w, t) = out;
        }
    }
}
