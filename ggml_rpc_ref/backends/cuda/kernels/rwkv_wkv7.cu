/* RWKV_WKV7: a state per head that decays by key and is corrected along b; a thread for each value, see recurrence.cuh. */
#include "recurrence.cuh"

enum { R, W, K, V, A, B, STATE };

KERNEL(rwkv_wkv7)
{
    EACH(number, walks(&g, STATE)) {
        struct walk w = walk_of(&g, STATE, number);
        float *state = w.state + w.own * w.size;
        for (int64_t j = 0; j < w.size; j++)
            state[j] = before_all(&g, &w, STATE, w.own * w.size + j);
        for (int64_t t = 0; t < w.tokens; t++) {
            int64_t token = offset_of(&w, t);
            const float *r = stream_at(&g, R, token), *decay = stream_at(&g, W, token), *k = stream_at(&g, K, token);
            const float *a = stream_at(&g, A, token), *b = stream_at(&g, B, token);
            float v = stream_at(&g, V, token)[w.own], correction = 0, out = 0;
            for (int64_t j = 0; j < w.size; j++)
                correction = fmaf(a[j], state[j], correction);
            for (int64_t j = 0; j < w.size; j++) {
                state[j] = fmaf(state[j], decay[j], fmaf(v, k[j], correction * b[j]));
                out = fmaf(r[j], state[j], out);
            }
            *output_of(&g, &w, t) = out;
        }
    }
}
