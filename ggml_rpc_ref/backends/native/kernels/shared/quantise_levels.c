/* See quantise_levels.h; blocks/few_bits.py, ternary.py, fp4.py and iq.py have the same in numpy, SPEC.md in words. */
#include "quantise_levels.h"

#include "rounding.h"

/* n elements to n / 2 bytes: the first half in the low four bits, the second in the high ones. */
static void put_nibbles(const uint8_t *code, uint8_t *to, int n)
{
    for (int i = 0; i < n / 2; i++)
        to[i] = (uint8_t)(code[i] | code[n / 2 + i] << 4);
}

/* ------------------------------------------------------------------------------------------------- one and two bits */

void quantise_q1_0(const float *x, uint8_t *to)
{
    float sum = 0;
    memset(to + 2, 0, 16);
    for (int i = 0; i < 128; i++) {
        sum += fabsf(x[i]);
        to[2 + i / 8] |= (uint8_t)((x[i] >= 0) << i % 8);
    }
    put16(to, to_half(sum / 128));
}

void quantise_q2_0(const float *x, uint8_t *to)
{
    float d = fabsf(largest(x, 64)), factor = inverse(d);
    put16(to, to_half(d));
    memset(to + 2, 0, 16);
    for (int i = 0; i < 64; i++) {
        int64_t level = (int64_t)truncated(roundf(x[i] * factor)) + 1;
        level = level < 0 ? 0 : level > 3 ? 3 : level;
        to[2 + i / 4] |= (uint8_t)(level << 2 * (i % 4));
    }
}

/* --------------------------------------------------------------------------------------------------------- ternary */

/* The digits -1, 0, 1 plus 1; returns the largest magnitude, to which a NaN counts until the next element. */
static float trits(const float *x, uint8_t *digit)
{
    float d = 0;
    for (int i = 0; i < 256; i++)
        d = d > fabsf(x[i]) ? d : fabsf(x[i]);
    for (int i = 0; i < 256; i++) {
        float t = roundf(x[i] * inverse(d));
        /* what fits no long is the least one, and of that the low byte is 0 */
        digit[i] = (uint8_t)((fabsf(t) < 0x1p63f ? (uint8_t)(int64_t)t : 0) + 1);
    }
    return d;
}

/* Digits `step` apart, the first the most significant, as a fraction of 256 rounded up. */
static uint8_t base_3(const uint8_t *digit, int step, int count)
{
    uint8_t number = 0;
    for (int k = 0; k < 5; k++)
        number = (uint8_t)(number * 3 + (k < count ? digit[k * step] : 0));
    return (uint8_t)((number * 256 + 242) / 243);
}

void quantise_tq1_0(const float *x, uint8_t *to)
{
    uint8_t digit[256];
    put16(to + 52, to_half(trits(x, digit)));
    for (int m = 0; m < 32; m++)
        to[m] = base_3(digit + m, 32, 5);
    for (int m = 0; m < 16; m++)
        to[32 + m] = base_3(digit + 160 + m, 16, 5);
    for (int m = 0; m < 4; m++)
        to[48 + m] = base_3(digit + 240 + m, 4, 4);
}

void quantise_tq2_0(const float *x, uint8_t *to)
{
    uint8_t digit[256];
    put16(to + 64, to_half(trits(x, digit)));
    memset(to, 0, 64);
    for (int i = 0; i < 256; i++)
        to[i / 128 * 32 + i % 32] |= (uint8_t)((digit[i] & 3) << i % 128 / 32 * 2);
}

/* ------------------------------------------------------------------------------------------------------------- FP4 */

static const int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* The code of least error, the first of equals; 0 for NaN. */
static uint8_t nearest_code(float x, float scale)
{
    uint8_t code = 0;
    float least = fabsf(0 * scale - x);
    for (int i = 1; i < 16; i++) {
        float error = fabsf(doubled[i] * scale - x);
        if (error < least) {
            least = error;
            code = (uint8_t)i;
        }
    }
    return code;
}

static void put_codes(const float *x, float scale, uint8_t *to, int n)
{
    uint8_t code[32];
    for (int i = 0; i < n; i++)
        code[i] = nearest_code(x[i], scale);
    put_nibbles(code, to, n);
}

void quantise_mxfp4(const float *x, uint8_t *to)
{
    float most = fabsf(largest(x, 32));
    float logarithm = (float)log2((double)most); /* rounded to float32, which can reach the next whole number */
    to[0] = most > 0 ? (uint8_t)truncated(floorf(logarithm) - 2 + 127) : 0;
    put_codes(x, ldexpf(1, to[0] - 128), to + 1, 32);
}

/* A positive number as UE4M3, halves up, 448 at most; 0 for what is not positive. */
static uint8_t to_ue4m3(float x)
{
    x = x > 0 ? fminf(x, 448) : 0;
    int32_t bits = (int32_t)as_bits(x), normal = (bits >> 20) - (120 << 3) + (bits >> 19 & 1), small = truncated(x * 512 + 0.5f);
    if (bits >> 23 > 120)
        return (uint8_t)(normal < 0x78 ? normal : 0x7E);
    return (uint8_t)(small < 7 ? small : 7);
}

/* Half of what a UE4M3 stands for; 0x7F is 0. */
static float half_of_ue4m3(uint8_t code)
{
    int exponent = code >> 3 & 15, mantissa = code & 7;
    if (code == 0x7F)
        return 0;
    return exponent ? ldexpf(1 + (float)mantissa / 8, exponent - 8) : ldexpf((float)mantissa, -10);
}

void quantise_nvfp4(const float *x, uint8_t *to)
{
    for (int run = 0; run < 4; run++, x += 16) {
        to[run] = to_ue4m3(fabsf(largest(x, 16)) / 6);
        put_codes(x, half_of_ue4m3(to[run]), to + 4 + 8 * run, 16);
    }
}

/* ------------------------------------------------------------------------------------------------------------- IQ4 */

static const int8_t iq4_level[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* The code of the nearest level, the upper of two equally near; 15 for NaN. */
static uint8_t nearest_level(float x)
{
    int code = 0;
    for (int i = 0; i < 15; i++)
        code += !(x < (float)(iq4_level[i] + iq4_level[i + 1]) / 2);
    return (uint8_t)code;
}

/* The sums of weight x level and of weight level^2, from first to last, under a scale. */
static void fit(const float *x, float factor, float *products, float *squares)
{
    *products = *squares = 0;
    for (int i = 0; i < 32; i++) {
        float weight = x[i] * x[i], q = iq4_level[nearest_level(factor * x[i])];
        *products += weight * q * x[i];
        *squares += weight * q * q;
    }
}

/* The best of the scales that map the largest element to `reach`, and to -127 - tries ... -127 + tries. */
static float search(const float *x, float reach, int tries)
{
    float most = largest(x, 32), products, squares;
    fit(x, 1 / (most / reach), &products, &squares);
    float scale = squares > 0 ? made(products / squares) : 0, best = scale * products;
    for (int step = -tries; tries && step <= tries; step++) {
        fit(x, (float)(step - 127) / most, &products, &squares);
        if (squares > 0 && products * products > best * squares) {
            scale = made(products / squares);
            best = scale * products;
        }
    }
    return fabsf(most) < 1e-15f ? 0 : scale;
}

/* Codes under a scale of which the inverse is given. */
static void put_levels(const float *x, float factor, uint8_t *to)
{
    uint8_t code[32];
    for (int i = 0; i < 32; i++)
        code[i] = nearest_level(factor * x[i]);
    put_nibbles(code, to, 32);
}

void quantise_iq4_nl(const float *x, uint8_t *to)
{
    float most = largest(x, 32);
    put16(to, to_half(search(x, -127, 0)));
    if (fabsf(most) < 1e-15f) /* here upstream writes what its scratch memory holds; code 8 is +0 */
        memset(to + 2, 0x88, 16);
    else
        put_levels(x, 1 / (most / -127), to + 2);
}

void quantise_iq4_xs(const float *x, uint8_t *to)
{
    float scale[8];
    unsigned high = 0;
    for (int g = 0; g < 8; g++)
        scale[g] = search(x + 32 * g, 127, 7);
    float d = -largest(scale, 8) / 32, factor = inverse(d);
    memset(to + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        /* to nearest, ties to even, by the mantissa */
        int32_t six_bits = (int32_t)((as_bits(factor * scale[g] + 12582912.0f) & 0x007FFFFF) - 0x00400000);
        six_bits = six_bits < -32 ? -32 : six_bits > 31 ? 31 : six_bits;
        put_levels(x + 32 * g, inverse(d * (float)six_bits), to + 8 + 16 * g);
        high |= (unsigned)(six_bits + 32) >> 4 << 2 * g;
        to[4 + g / 2] |= (uint8_t)(((six_bits + 32) & 15) << 4 * (g % 2));
    }
    put16(to, to_half(d));
    put16(to + 2, (uint16_t)high);
}
