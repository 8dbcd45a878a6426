/* See rotation.h. Cosines and sines are computed once for each token (phase 1) and used by all of its rows (phase 2).

   ROPE and ROPE_BACK have the same parameters, so one set of functions reads both. */
#include "rotation.h"

#include "elements.h"
#include "half.h"
#include "vector.h"

enum { NORMAL = 0, NEOX = 2, MROPE = 8, VISION = 24, IMROPE = 40 };

static int64_t pairs_of(const struct geometry *g) { return rope_mode(g) == VISION ? rope_n_dims(g) : rope_n_dims(g) / 2; }
static int64_t row_floats(const struct geometry *g) { return aligned(4 * (pairs_of(g) + LANES)) / 4; }
static bool is_near(const struct geometry *g) { return rope_mode(g) == NORMAL; }

/* Floats of a table of cosines or sines. */
static int64_t table_floats(const struct geometry *g) { return row_floats(g) * (is_near(g) ? 2 : 1); }

/* Which of the four positions a pair turns by. */
static int axis_of(const struct geometry *g, int64_t pair)
{
    int64_t sections[4], sum = 0;
    for (int i = 0; i < 4; i++)
        sum += sections[i] = rope_sections(g, i);
    int64_t place = pair % sum;
    if (rope_mode(g) == IMROPE)
        return place < 3 * sections[place % 3] ? (int)(place % 3) : 3;
    int axis = 0;
    for (int64_t end = 0; axis < 3 && (end += sections[axis]) <= place;)
        axis++;
    return axis;
}

/* Elements before those that are turned. */
static int64_t offset_of(const struct geometry *g)
{
    return has_change(g, g->op == GGML_OP_ROPE ? CHANGE_ROPE_OFFSET : CHANGE_ROPE_BACK_OFFSET) ? rope_n_offs(g) : 0;
}

/* In vision mode: whose powers begin anew at a pair, since its section does; -1: none. Of several sections that begin at one place
   only the first one's, as upstream's chain of `else if` has it. */
static int restarted(const struct geometry *g, int64_t pair)
{
    int64_t sum = 0, begin = 0;
    for (int axis = 0; axis < 4; axis++)
        sum += rope_sections(g, axis);
    for (int axis = 0; axis < 4; begin += rope_sections(g, axis), axis++)
        if (pair % sum == begin)
            return axis;
    return -1;
}

/* Position times powers of the base, one rounding for each step, as upstream's loop has. */
static void angles(const struct geometry *g, const struct node *node, int64_t token, float *theta)
{
    const struct layout *l = &g->src[1];
    int axes = rope_mode(g) & MROPE ? 4 : 1;
    float step = (float)pow((double)rope_freq_base(g), (double)(-2.0f / (float)rope_n_dims(g))), power[4], start[4];
    for (int axis = 0; axis < axes; axis++) {
        int32_t position;
        memcpy(&position, node->src[1] + (axis * g->dst.ne[2] + token) * l->nb[0], sizeof position);
        power[axis] = start[axis] = (float)position;
    }
    for (int64_t pair = 0; pair < pairs_of(g); pair++) {
        int anew = rope_mode(g) == VISION ? restarted(g, pair) : -1;
        if (anew >= 0)
            power[anew] = start[anew];
        theta[pair] = power[axes == 1 ? 0 : axis_of(g, pair)];
        for (int axis = 0; axis < axes; axis++)
            power[axis] *= step;
    }
    if (present(&g->src[2])) {
        const f32 *factors = (const f32 *)node->src[2];
        for (int64_t pair = 0; pair < pairs_of(g); pair++)
            theta[pair] /= factors[pair];
    }
}

static float correction(const struct geometry *g, float beta)
{
    float turns = (float)rope_n_ctx_orig(g) / (beta * 2.0f * (float)M_PI);
    return (float)rope_n_dims(g) * logf(turns) / (2.0f * logf(rope_freq_base(g)));
}

/* How much of the unscaled angle YaRN mixes in. */
static float ramp(float low, float high, int64_t pair)
{
    float y = ((float)pair - low) / fmaxf(0.001f, high - low);
    return 1 - fminf(1, fmaxf(0, y));
}

/* Angles to scaled ones; returns the factor on the result. */
static float scale_angles(const struct geometry *g, float *theta)
{
    float scale = rope_freq_scale(g), ext = rope_ext_factor(g);
    if (ext == 0) {
        for (int64_t pair = 0; pair < pairs_of(g); pair++)
            theta[pair] *= scale;
        return rope_attn_factor(g);
    }
    float low = fmaxf(0, floorf(correction(g, rope_beta_fast(g))));
    float high = fminf((float)(rope_n_dims(g) - 1), ceilf(correction(g, rope_beta_slow(g))));
    for (int64_t pair = 0; pair < pairs_of(g); pair++) {
        float mix = ramp(low, high, pair) * ext;
        theta[pair] = theta[pair] * scale * (1 - mix) + theta[pair] * mix;
    }
    return rope_attn_factor(g) * (1.0f + 0.1f * logf(1.0f / scale));
}

static void turn_tokens(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = table_floats(g);
    bool back = g->op == GGML_OP_ROPE_BACK;
    for (int64_t token = first; token < last; token++) {
        float *cosine = (float *)work->shared + token * 2 * n, *sine = cosine + n, *theta = (float *)work->own;
        memset(theta, 0, row_floats(g) * sizeof *theta);
        angles(g, node, token, theta);
        float factor = scale_angles(g, theta);
        for (int64_t i = 0; i < pairs_of(g); i += LANES) {
            f32x16 s, c, x = load16(theta + i);
            turns16(x, &s, &c);
            store16(cosine + i, c * factor);
            store16(sine + i, s * (back ? -factor : factor));
        }
        for (int64_t i = pairs_of(g) - 1; i >= 0 && is_near(g); i--) {
            cosine[2 * i] = cosine[2 * i + 1] = cosine[i];
            sine[2 * i + 1] = sine[i];
            sine[2 * i] = -sine[i];
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------- rows */

static void turn_far(f32 *dst, const f32 *a, int64_t n, const float *cosine, const float *sine)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        f32x16 x = load16(a + i), y = load16(a + n + i), c = load16(cosine + i), s = load16(sine + i);
        store16(dst + i, x * c - y * s);
        store16(dst + n + i, x * s + y * c);
    }
    for (; i < n; i++) {
        float x = a[i], y = a[n + i];
        dst[i] = x * cosine[i] - y * sine[i];
        dst[n + i] = x * sine[i] + y * cosine[i];
    }
}

/* Neighbours exchanged. */
static inline f32x16 exchanged(f32x16 v)
{
#if defined(__AVX512F__)
    return (f32x16)_mm512_permute_ps((__m512)v, 0xB1);
#elif defined(__AVX2__)
    return (f32x16)_mm256_permute_ps((__m256)v, 0xB1);
#elif defined(NEON)
    return (f32x16)vrev64q_f32((float32x4_t)v);
#else
    typedef uint64_t pairs __attribute__((vector_size(4 * LANES)));
    return (f32x16)((pairs)v << 32 | (pairs)v >> 32);
#endif
}

/* n pairs of neighbours; the tables have each number twice, sines first with the sign turned. */
static void turn_near(float *dst, const float *a, int64_t n, const float *cosine, const float *sine)
{
    for (int64_t i = 0; i < 2 * n; i += LANES) {
        f32x16 v = load_part(a + i, 2 * n - i);
        store_part(dst + i, v * load16(cosine + i) + exchanged(v) * load16(sine + i), 2 * n - i);
    }
}

static void turn_halves(u16 *dst, const u16 *a, int64_t n, const float *cosine, const float *sine, bool near)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t p = near ? 2 * i : i, q = near ? 2 * i + 1 : n + i;
        float x = from_half(a[p]), y = from_half(a[q]), c = cosine[near ? q : i], s = sine[near ? q : i];
        dst[p] = to_half(x * c - y * s);
        dst[q] = to_half(x * s + y * c);
    }
}

static void turn_rows(const struct node *node, int64_t first, int64_t last, const struct work *work)
{
    const struct geometry *g = node->of;
    int64_t n = pairs_of(g), size = type_size[g->dst.type], before = offset_of(g) * size, after = before + 2 * n * size;
    bool near = is_near(g);
    for (int64_t row = first; row < last; row++) {
        struct place p = place_of(&g->dst, row);
        const float *cosine = (const float *)work->shared + p.i2 * 2 * table_floats(g), *sine = cosine + table_floats(g);
        uint8_t *dst = row_at(&g->dst, node->dst, p.i1, p.i2, p.i3), *a = row_at(&g->src[0], node->src[0], p.i1, p.i2, p.i3);
        if (!is_f32(&g->dst))
            turn_halves((uint16_t *)(dst + before), (const uint16_t *)(a + before), n, cosine, sine, near);
        else if (near)
            turn_near((float *)(dst + before), (const float *)(a + before), n, cosine, sine);
        else
            turn_far((float *)(dst + before), (const float *)(a + before), n, cosine, sine);
        if (dst != a) {
            memcpy(dst, a, (size_t)before);
            memcpy(dst + after, a + after, (size_t)(g->dst.ne[0] * size - after));
        }
    }
}

bool plan_rotation(struct geometry *g)
{
    const struct layout *x = &g->src[0];
    if (!dense_rows(x) || !dense_rows(&g->dst) || (x->type != GGML_TYPE_F32 && x->type != GGML_TYPE_F16))
        return false;
    g->own = 4 * row_floats(g);
    g->shared = g->dst.ne[2] * 2 * 4 * table_floats(g);
    add_phase(g, turn_tokens, g->dst.ne[2], 4.0 * pairs_of(g));
    add_phase(g, turn_rows, rows(&g->dst), g->dst.ne[0] * 0.6);
    return true;
}
