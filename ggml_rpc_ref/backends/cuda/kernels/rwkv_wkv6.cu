/* RWKV_WKV6: a state per head that decays by key and accumulates key times value; a thread for each value, see recurrence.cuh. */
#include "recurrence.cuh"

enum { K, V, R, FIRST, DECAY, STATE };

KERNEL(rwkv_wkv6)
{
    EACH(number, walks(&g, STATE)) {
        struct walk w = walk_of(&g, STATE, number);
        const float *first = stream_at(&g, FIRST, w.head * w.size);
        for (int64_t i = 0; i < w.size; i++)
            w.state[i * w.size + w.own] = before_all(&g, &w, STATE, i * w.size + w.own);
        for (int64_t t = 0; t < w.tokens; t++) {
            int64_t token = offset_of(&w, t);
            const float *k = stream_at(&g, K, token), *r = stream_at(&g, R, token), *decay = stream_at(&g, DECAY, token);
            float v = stream_at(&g, V, token)[w.own], out = 0;
            for (int64_t i = 0; i < w.size; i++) {
                float *state = w.state + i * w.size + w.own, taken = k[i] * v;
                out = fmaf(r[i], fmaf(first[i], taken, *state), out);
                *state = fmaf(*state, decay[i], taken);
            }
            *output_of(&g, &w, t) = out;
        }
    }
}
