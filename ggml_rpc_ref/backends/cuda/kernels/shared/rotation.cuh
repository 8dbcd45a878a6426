/* ROPE and ROPE_BACK: each pair of elements of a row is turned by an angle of its own. They have the same parameters.

   A block for each row. Its threads share the pairs; the angle of a pair is the position times a power of the base, one rounding
   for each step, as upstream's loop has it, so each thread multiplies up to its pair. */
#pragma once
#include "kernel.cuh"

enum { NORMAL = 0, NEOX = 2, MROPE = 8, VISION = 24, IMROPE = 40 };

/* Which of the four positions a pair turns by. */
DEVICE int axis_of(const struct geometry *g, int64_t pair)
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

/* In vision mode: whose powers begin anew at a pair, since its section does; -1: none. Of several sections that begin at one place
   only the first one's, as upstream's chain of `else if` has it. */
DEVICE int restarted(const struct geometry *g, int64_t pair)
{
    int64_t sum = 0, begin = 0;
    for (int axis = 0; axis < 4; axis++)
        sum += rope_sections(g, axis);
    for (int axis = 0; axis < 4; begin += rope_sections(g, axis), axis++)
        if (pair % sum == begin)
            return axis;
    return -1;
}

DEVICE float correction(const struct geometry *g, float beta)
{
    float turns = (float)rope_n_ctx_orig(g) / (beta * 2.0f * 3.14159265f);
    return (float)rope_n_dims(g) * logf(turns) / (2.0f * logf(rope_freq_base(g)));
}

/* How much of the unscaled angle YaRN mixes in. */
DEVICE float ramp(const struct geometry *g, int64_t pair)
{
    float low = fmaxf(0, floorf(correction(g, rope_beta_fast(g))));
    float high = fminf((float)(rope_n_dims(g) - 1), ceilf(correction(g, rope_beta_slow(g))));
    float y = ((float)pair - low) / fmaxf(0.001f, high - low);
    return 1 - fminf(1, fmaxf(0, y));
}

/* Cosine and sine of a pair of a token, scaled. `step` is the factor from one pair to the next. */
DEVICE void turn_of(const struct geometry *g, int64_t token, int64_t pair, float step, float *cosine, float *sine)
{
    int64_t axis = rope_mode(g) & MROPE ? axis_of(g, pair) : 0;
    float start = (float)i32_at(g->src[1].data + 4 * (axis * g->dst.ne[2] + token)), factor = rope_attn_factor(g), theta = start;
    for (int64_t i = 1; i <= pair; i++)
        theta = rope_mode(g) == VISION && restarted(g, i) == axis ? start : theta * step;
    if (present(&g->src[2]))
        theta /= f32_at(g->src[2].data + 4 * pair);
    float angle = theta * rope_freq_scale(g);
    if (rope_ext_factor(g) != 0) {
        float mix = ramp(g, pair) * rope_ext_factor(g);
        angle = angle * (1 - mix) + theta * mix;
        factor *= 1.0f + 0.1f * logf(1.0f / rope_freq_scale(g));
    }
    *cosine = cosf(angle) * factor;
    *sine = sinf(angle) * factor;
}

/* Turn all rows, or turn them back. */
DEVICE void rotate_rows(const struct geometry *node, bool back)
{
    const struct geometry &g = *node;
    /* in some versions the first elements of a row are not turned */
    int64_t n = rope_n_dims(&g) / (rope_mode(&g) == VISION ? 1 : 2), offset = has_change(&g, back ? CHANGE_ROPE_BACK_OFFSET : CHANGE_ROPE_OFFSET) ? rope_n_offs(&g) : 0;
    bool near = rope_mode(&g) == NORMAL;
    int32_t type = g.dst.type, size = type_size[type];
    float step = (float)pow((double)rope_freq_base(&g), (double)(-2.0f / (float)rope_n_dims(&g)));
    EACH_ROW(row, rows_of(&g.dst)) {
        struct place p = place_of_row(&g.dst, row);
        const uint8_t *from = at_place(&g.src[0], p);
        uint8_t *to = at_place(&g.dst, p);
        SHARE(pair, n) {
            int64_t first = offset + (near ? 2 * pair : pair), second = first + (near ? 1 : n);
            float cosine, sine, x = load(type, from + first * size), y = load(type, from + second * size);
            turn_of(&g, p.i2, pair, step, &cosine, &sine);
            if (back)
                sine = -sine;
            store(type, to + first * size, x * cosine - y * sine);
            store(type, to + second * size, x * sine + y * cosine);
        }
        SHARE(i, g.dst.ne[0] - 2 * n) {
            int64_t other = i < offset ? i : 2 * n + i;
            store(type, to + other * size, load(type, from + other * size));
        }
    }
}
