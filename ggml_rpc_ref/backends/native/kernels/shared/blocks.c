/* Unpacking, one function for each block type; SPEC.md says where each bit lies. */
#include "blocks.h"

#include "grids.h"
#include "vector.h"

static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | (uint32_t)u16(p + 2) << 16; }
static float half_at(const uint8_t *p) { return from_half(u16(p)); }

/* n bytes to 2n levels: all low halves, then all high ones. */
static void nibbles(const uint8_t *packed, int8_t *level, int n)
{
    for (int i = 0; i < n; i++) {
        level[i] = packed[i] & 15;
        level[n + i] = packed[i] >> 4;
    }
}

static void subtract(int8_t *level, int n, int offset)
{
    for (int i = 0; i < n; i++)
        level[i] = (int8_t)(level[i] - offset);
}

/* ----------------------------------------------------------------------------------------------------- 32 elements */

static void unpack_q4_0(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 2, to->level, 16);
    subtract(to->level, 32, 8);
    to->scale[0] = half_at(b);
}

static void unpack_q4_1(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 4, to->level, 16);
    to->scale[0] = half_at(b);
    to->minimum[0] = -half_at(b + 2);
}

static void fifth_bits(uint32_t bits, int8_t *level)
{
    for (int i = 0; i < 32; i++)
        level[i] |= (bits >> i & 1) << 4;
}

static void unpack_q5_0(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 6, to->level, 16);
    fifth_bits(u32(b + 2), to->level);
    subtract(to->level, 32, 16);
    to->scale[0] = half_at(b);
}

static void unpack_q5_1(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 8, to->level, 16);
    fifth_bits(u32(b + 4), to->level);
    to->scale[0] = half_at(b);
    to->minimum[0] = -half_at(b + 2);
}

static void unpack_q8_0(const uint8_t *b, struct unpacked *to)
{
    memcpy(to->level, b + 2, 32);
    to->scale[0] = half_at(b);
}

static void unpack_q8_1(const uint8_t *b, struct unpacked *to)
{
    memcpy(to->level, b + 4, 32);
    to->scale[0] = half_at(b);
}

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static void look_up(int8_t *level, int n, const int8_t *table)
{
    for (int i = 0; i < n; i++)
        level[i] = table[level[i]];
}

static void unpack_iq4_nl(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 2, to->level, 16);
    look_up(to->level, 32, iq4_levels);
    to->scale[0] = half_at(b);
}

/* Twice the value of each four-bit code. */
static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e - 127); the first two are below the smallest normal number. */
static float half_e8m0(uint8_t e) { return e < 2 ? as_float(0x00200000u << e) : as_float((uint32_t)(e - 1) << 23); }

static void unpack_mxfp4(const uint8_t *b, struct unpacked *to)
{
    nibbles(b + 1, to->level, 16);
    look_up(to->level, 32, e2m1_doubled);
    to->scale[0] = half_e8m0(b[0]);
}

/* Half of a UE4M3 number: 0eeeemmm, bias 7; bit 7 is ignored, 0x7F reads as 0. */
static float half_ue4m3(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (code == 0x7F)
        return 0;
    return exponent ? ldexpf(1 + mantissa / 8.0f, exponent - 8) : ldexpf((float)mantissa, -10);
}

static void unpack_nvfp4(const uint8_t *b, struct unpacked *to)
{
    for (int part = 0; part < 4; part++) {
        nibbles(b + 4 + 8 * part, to->level + 16 * part, 8);
        to->scale[part] = half_ue4m3(b[part]);
    }
    look_up(to->level, 64, e2m1_doubled);
}

/* ------------------------------------------------------------------------------------------------------- the K types */

/* 32 n bytes to 128 n levels: of each 32 bytes all bits 0-1, all bits 2-3, and so on. */
static void bit_pairs(const uint8_t *packed, int8_t *level, int n)
{
    for (int part = 0; part < n; part++)
        for (int shift = 0; shift < 4; shift++)
            for (int i = 0; i < 32; i++)
                level[128 * part + 32 * shift + i] = packed[32 * part + i] >> 2 * shift & 3;
}

static void unpack_q2_k(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b + 80), dmin = half_at(b + 82);
    bit_pairs(b + 16, to->level, 2);
    for (int i = 0; i < 16; i++) {
        to->scale[i] = (b[i] & 15) * d;
        to->minimum[i] = (b[i] >> 4) * dmin;
    }
}

static void unpack_q3_k(const uint8_t *b, struct unpacked *to)
{
    const uint8_t *packed = b + 96;
    float d = half_at(b + 108);
    bit_pairs(b + 32, to->level, 2);
    for (int i = 0; i < 256; i++)
        to->level[i] = (int8_t)((to->level[i] | (b[i % 32] >> i / 32 & 1) << 2) - 4);
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4, high = packed[8 + i % 4] >> 2 * (i / 4) & 3;
        to->scale[i] = ((low | high << 4) - 32) * d;
    }
}

/* The twelve scale bytes of Q4_K and Q5_K. */
static void six_bit_pairs(const uint8_t *packed, float d, float dmin, struct unpacked *to)
{
    for (int i = 0; i < 4; i++) {
        to->scale[i] = (packed[i] & 63) * d;
        to->minimum[i] = (packed[4 + i] & 63) * dmin;
        to->scale[4 + i] = ((packed[8 + i] & 15) | packed[i] >> 6 << 4) * d;
        to->minimum[4 + i] = (packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4) * dmin;
    }
}

static void unpack_q4_k(const uint8_t *b, struct unpacked *to)
{
    six_bit_pairs(b + 4, half_at(b), half_at(b + 2), to);
    for (int part = 0; part < 4; part++)
        nibbles(b + 16 + 32 * part, to->level + 64 * part, 32);
}

static void unpack_q5_k(const uint8_t *b, struct unpacked *to)
{
    six_bit_pairs(b + 4, half_at(b), half_at(b + 2), to);
    for (int part = 0; part < 4; part++)
        nibbles(b + 48 + 32 * part, to->level + 64 * part, 32);
    for (int i = 0; i < 256; i++)
        to->level[i] |= (b[16 + i % 32] >> i / 32 & 1) << 4;
}

static void unpack_q6_k(const uint8_t *b, struct unpacked *to)
{
    int8_t high[256];
    bit_pairs(b + 128, high, 2);
    for (int part = 0; part < 2; part++)
        nibbles(b + 64 * part, to->level + 128 * part, 64);
    for (int i = 0; i < 256; i++)
        to->level[i] = (int8_t)((to->level[i] | high[i] << 4) - 32);
    float d = half_at(b + 208);
    for (int i = 0; i < 16; i++)
        to->scale[i] = (int8_t)b[192 + i] * d;
}

/* One scale for all, written for each 32. */
static void one_scale(struct unpacked *to, float d)
{
    for (int i = 0; i < 8; i++)
        to->scale[i] = d;
}

static void unpack_q8_k(const uint8_t *b, struct unpacked *to)
{
    memcpy(to->level, b + 4, 256);
    one_scale(to, as_float(u32(b)));
}

/* ------------------------------------------------------------------------------------------------- the ternary types */

static void unpack_tq2_0(const uint8_t *b, struct unpacked *to)
{
    bit_pairs(b, to->level, 2);
    subtract(to->level, 256, 1);
    one_scale(to, half_at(b + 64));
}

/* The digit of a fraction in base 3 that a byte is, once the digits before it are dropped. */
static int8_t digit(uint8_t byte, int k)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    return (int8_t)(((uint8_t)(byte * powers[k]) * 3 >> 8) - 1);
}

static void unpack_tq1_0(const uint8_t *b, struct unpacked *to)
{
    for (int k = 0; k < 5; k++) {
        for (int m = 0; m < 32; m++)
            to->level[32 * k + m] = digit(b[m], k);
        for (int m = 0; m < 16; m++)
            to->level[160 + 16 * k + m] = digit(b[32 + m], k);
    }
    for (int k = 0; k < 4; k++)
        for (int m = 0; m < 4; m++)
            to->level[240 + 4 * k + m] = digit(b[48 + m], k);
    one_scale(to, half_at(b + 52));
}

/* ------------------------------------------------------------------------------------------------------ the IQ types */

/* Magnitudes of a grid entry, with the signs of eight (or four) bits. */
static void signed_entry(const uint8_t *entry, int n, unsigned signs, int8_t *level)
{
    for (int j = 0; j < n; j++)
        level[j] = (int8_t)(signs >> j & 1 ? -entry[j] : entry[j]);
}

/* Seven stored signs, and the eighth that makes the number of minus signs even. */
static unsigned even_signs(unsigned seven) { return seven | (__builtin_popcount(seven) & 1u) << 7; }

static void unpack_iq2_xxs(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b);
    for (int g = 0; g < 8; g++) {
        const uint8_t *grid = b + 2 + 8 * g;
        uint32_t signs = u32(grid + 4);
        for (int l = 0; l < 4; l++)
            signed_entry(iq2_xxs_grid[grid[l]], 8, even_signs(signs >> 7 * l & 127), to->level + 32 * g + 8 * l);
        to->scale[g] = (0.5f + (float)(signs >> 28)) * d * 0.25f;
    }
}

static void quarter_scales(const uint8_t *scales, float d, struct unpacked *to)
{
    for (int i = 0; i < 16; i++)
        to->scale[i] = (0.5f + (float)(scales[i / 2] >> 4 * (i % 2) & 15)) * d * 0.25f;
}

static void unpack_iq2_xs(const uint8_t *b, struct unpacked *to)
{
    for (int run = 0; run < 32; run++) {
        unsigned q = u16(b + 2 + 2 * run);
        signed_entry(iq2_xs_grid[q & 511], 8, even_signs(q >> 9), to->level + 8 * run);
    }
    quarter_scales(b + 66, half_at(b), to);
}

static void unpack_iq2_s(const uint8_t *b, struct unpacked *to)
{
    for (int run = 0; run < 32; run++) {
        unsigned high = b[66 + run / 4] >> 2 * (run % 4) & 3;
        signed_entry(iq2_s_grid[b[2 + run] | high << 8], 8, b[34 + run], to->level + 8 * run);
    }
    quarter_scales(b + 74, half_at(b), to);
}

static void unpack_iq3_xxs(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b);
    for (int g = 0; g < 8; g++) {
        uint32_t signs = u32(b + 66 + 4 * g);
        for (int k = 0; k < 8; k++) {
            unsigned eight = even_signs(signs >> 7 * (k / 2) & 127);
            signed_entry(iq3_xxs_grid[b[2 + 8 * g + k]], 4, eight >> 4 * (k % 2), to->level + 32 * g + 4 * k);
        }
        to->scale[g] = (0.5f + (float)(signs >> 28)) * d * 0.5f;
    }
}

static void unpack_iq3_s(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b);
    for (int g = 0; g < 8; g++) {
        for (int k = 0; k < 8; k++) {
            unsigned index = b[2 + 8 * g + k] | (b[66 + g] >> k & 1u) << 8;
            signed_entry(iq3_s_grid[index], 4, b[74 + 4 * g + k / 2] >> 4 * (k % 2), to->level + 32 * g + 4 * k);
        }
        to->scale[g] = (float)(1 + 2 * (b[106 + g / 2] >> 4 * (g % 2) & 15)) * d;
    }
}

/* Eight times grid +- 1/8, under an eighth of the scale: both exact. */
static void shifted_entry(const int8_t *entry, bool minus, int8_t *level)
{
    for (int j = 0; j < 8; j++)
        level[j] = (int8_t)(8 * entry[j] + (minus ? -1 : 1));
}

static void unpack_iq1_s(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b);
    for (int g = 0; g < 8; g++) {
        unsigned qh = u16(b + 34 + 2 * g);
        for (int l = 0; l < 4; l++)
            shifted_entry(iq1_grid[b[2 + 4 * g + l] | (qh >> 3 * l & 7) << 8], qh >> 15, to->level + 32 * g + 8 * l);
        to->scale[g] = (float)(1 + 2 * (qh >> 12 & 7)) * d * 0.125f;
    }
}

static void unpack_iq1_m(const uint8_t *b, struct unpacked *to)
{
    unsigned bits = 0;
    for (int w = 0; w < 4; w++)
        bits |= (unsigned)(u16(b + 48 + 2 * w) >> 12) << 4 * w;
    float d = from_half((uint16_t)bits);
    for (int run = 0; run < 32; run++) {
        unsigned qh = b[32 + run / 2] >> 4 * (run % 2) & 15;
        shifted_entry(iq1_grid[b[run] | (qh & 7) << 8], qh >> 3, to->level + 8 * run);
    }
    for (int i = 0; i < 16; i++)
        to->scale[i] = (float)(1 + 2 * (u16(b + 48 + 2 * (i / 4)) >> 3 * (i % 4) & 7)) * d * 0.125f;
}

static void unpack_iq4_xs(const uint8_t *b, struct unpacked *to)
{
    float d = half_at(b);
    unsigned high = u16(b + 2);
    for (int g = 0; g < 8; g++) {
        nibbles(b + 8 + 16 * g, to->level + 32 * g, 16);
        int scale = (b[4 + g / 2] >> 4 * (g % 2) & 15) | (high >> 2 * g & 3) << 4;
        to->scale[g] = (float)(scale - 32) * d;
    }
    look_up(to->level, 256, iq4_levels);
}

/* ------------------------------------------------------------------------------------------------- one and two bits */

static void unpack_q1_0(const uint8_t *b, struct unpacked *to)
{
    for (int i = 0; i < 128; i++)
        to->level[i] = b[2 + i / 8] >> i % 8 & 1 ? 1 : -1;
    for (int g = 0; g < 4; g++)
        to->scale[g] = half_at(b);
}

static void unpack_q2_0(const uint8_t *b, struct unpacked *to)
{
    for (int i = 0; i < 64; i++)
        to->level[i] = (int8_t)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1);
    to->scale[0] = to->scale[1] = half_at(b);
}

const struct block_type block_types[TYPES] = {
    [GGML_TYPE_Q4_0] = {unpack_q4_0, 32, false, -8, 7},
    [GGML_TYPE_Q4_1] = {unpack_q4_1, 32, true, 0, 15},
    [GGML_TYPE_Q5_0] = {unpack_q5_0, 32, false, -16, 15},
    [GGML_TYPE_Q5_1] = {unpack_q5_1, 32, true, 0, 31},
    [GGML_TYPE_Q8_0] = {unpack_q8_0, 32, false, -128, 127},
    [GGML_TYPE_Q8_1] = {unpack_q8_1, 32, false, -128, 127},
    [GGML_TYPE_IQ4_NL] = {unpack_iq4_nl, 32, false, -127, 113},
    [GGML_TYPE_MXFP4] = {unpack_mxfp4, 32, false, -12, 12},
    [GGML_TYPE_NVFP4] = {unpack_nvfp4, 16, false, -12, 12},
    [GGML_TYPE_Q2_K] = {unpack_q2_k, 16, true, 0, 3},
    [GGML_TYPE_Q3_K] = {unpack_q3_k, 16, false, -4, 3},
    [GGML_TYPE_Q4_K] = {unpack_q4_k, 32, true, 0, 15},
    [GGML_TYPE_Q5_K] = {unpack_q5_k, 32, true, 0, 31},
    [GGML_TYPE_Q6_K] = {unpack_q6_k, 16, false, -32, 31},
    [GGML_TYPE_Q8_K] = {unpack_q8_k, 32, false, -128, 127},
    [GGML_TYPE_TQ1_0] = {unpack_tq1_0, 32, false, -1, 1},
    [GGML_TYPE_TQ2_0] = {unpack_tq2_0, 32, false, -1, 2},
    [GGML_TYPE_IQ2_XXS] = {unpack_iq2_xxs, 32, false, -43, 43},
    [GGML_TYPE_IQ2_XS] = {unpack_iq2_xs, 16, false, -43, 43},
    [GGML_TYPE_IQ2_S] = {unpack_iq2_s, 16, false, -43, 43},
    [GGML_TYPE_IQ3_XXS] = {unpack_iq3_xxs, 32, false, -62, 62},
    [GGML_TYPE_IQ3_S] = {unpack_iq3_s, 32, false, -15, 15},
    [GGML_TYPE_IQ1_S] = {unpack_iq1_s, 32, false, -9, 9},
    [GGML_TYPE_IQ1_M] = {unpack_iq1_m, 16, false, -9, 9},
    [GGML_TYPE_IQ4_XS] = {unpack_iq4_xs, 32, false, -127, 113},
    [GGML_TYPE_Q1_0] = {unpack_q1_0, 32, false, -1, 1},
    [GGML_TYPE_Q2_0] = {unpack_q2_0, 32, false, -1, 2},
};

/* ---------------------------------------------------------------------------------------------------------- to float32 */

static void scaled(const struct unpacked *from, const struct block_type *type, int n, float *to)
{
    for (int start = 0, g = 0; start < n; start += type->group, g++) {
        float scale = from->scale[g], minimum = type->has_minimum ? from->minimum[g] : 0;
        const int8_t *level = from->level + start;
        for (int i = 0; i < type->group; i += LANES) {
            f32x16 product = splat(scale) * load_levels(level + i);
            store16(to + start + i, type->has_minimum ? product - minimum : product);
        }
    }
}

/* Types whose levels are halves of bytes without the detour by `struct unpacked`: `nibbles` of 16 or 32 bytes, an offset taken off. */
static inline void scaled_nibbles(const uint8_t *packed, int n, int offset, const float *scale, const float *minimum, float *to)
{
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < n; i += LANES) {
        bytes both, low;
        memcpy(&both, packed + i, sizeof both);
        low = both & 15;
        both >>= 4;
        f32x16 first = splat(scale[0]) * (load_levels((const int8_t *)&low) - (float)offset);
        f32x16 second = splat(scale[1]) * (load_levels((const int8_t *)&both) - (float)offset);
        store16(to + i, minimum ? first - minimum[0] : first);
        store16(to + n + i, minimum ? second - minimum[1] : second);
    }
}

static void dequantise_q4_0(const uint8_t *b, float *to)
{
    float scale = half_at(b);
    scaled_nibbles(b + 2, 16, 8, (float[2]){scale, scale}, NULL, to);
}

static void dequantise_q4_1(const uint8_t *b, float *to)
{
    float scale = half_at(b), minimum = -half_at(b + 2);
    scaled_nibbles(b + 4, 16, 0, (float[2]){scale, scale}, (float[2]){minimum, minimum}, to);
}

static void dequantise_q8_0(const uint8_t *b, float *to)
{
    f32x16 scale = splat(half_at(b));
    for (int i = 0; i < 32; i += LANES)
        store16(to + i, scale * load_levels((const int8_t *)b + 2 + i));
}

static void dequantise_q4_k(const uint8_t *b, float *to)
{
    struct unpacked pairs;
    six_bit_pairs(b + 4, half_at(b), half_at(b + 2), &pairs);
    for (int part = 0; part < 4; part++)
        scaled_nibbles(b + 16 + 32 * part, 32, 0, pairs.scale + 2 * part, pairs.minimum + 2 * part, to + 64 * part);
}

/* What models' embeddings are mostly made of, at once. */
static void (*block_function(int32_t type))(const uint8_t *, float *)
{
    switch (type) {
    case GGML_TYPE_Q4_0: return dequantise_q4_0;
    case GGML_TYPE_Q4_1: return dequantise_q4_1;
    case GGML_TYPE_Q8_0: return dequantise_q8_0;
    case GGML_TYPE_Q4_K: return dequantise_q4_k;
    default: return NULL;
    }
}

void unpack_levels(int32_t type, const uint8_t *row, int64_t k, int8_t *level, float *scale, float *minimum)
{
    int block = type_block[type], parts = block / block_types[type].group;
    for (int64_t i = 0; i < k / block; i++, row += type_size[type]) {
        struct unpacked unpacked;
        block_types[type].unpack(row, &unpacked);
        memcpy(level + i * block, unpacked.level, block);
        memcpy(scale + i * parts, unpacked.scale, parts * sizeof *scale);
        if (block_types[type].has_minimum)
            memcpy(minimum + i * parts, unpacked.minimum, parts * sizeof *minimum);
    }
}

bool can_dequantise(int32_t type)
{
    return block_types[type].unpack || type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16;
}

void dequantise_row(int32_t type, const uint8_t *row, f32 *to, int64_t n)
{
    const struct block_type *blocks = &block_types[type];
    if (type == GGML_TYPE_F32) {
        memcpy(to, row, (size_t)n * sizeof *to);
    } else if (type == GGML_TYPE_F16) {
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES)
            store16(to + i, load_f16(row + 2 * i));
        for (; i < n; i++)
            to[i] = half_at(row + 2 * i);
    } else if (type == GGML_TYPE_BF16) {
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES)
            store16(to + i, load_bf16(row + 2 * i));
        for (; i < n; i++)
            to[i] = from_bf16(u16(row + 2 * i));
    } else if (block_function(type)) {
        void (*at_once)(const uint8_t *, float *) = block_function(type);
        for (int64_t i = 0; i < n; i += type_block[type], row += type_size[type])
            at_once(row, to + i);
    } else {
        int block = type_block[type];
        for (int64_t i = 0; i < n; i += block, row += type_size[type]) {
            struct unpacked unpacked;
            blocks->unpack(row, &unpacked);
            scaled(&unpacked, blocks, block, to + i);
        }
    }
}
