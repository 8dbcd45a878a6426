/* See activations.h. */
#include "activations.h"

#include "vector.h"

int64_t activations_size(int64_t k, int group)
{
    return aligned(k) + aligned(k / 32 * 4) + 2 * aligned(k / group * 4) + 64;
}

struct activations activations_at(uint8_t *memory, int64_t k, int group)
{
    struct activations a;
    a.level = (int8_t *)memory;
    a.scale = (float *)(memory += aligned(k));
    a.sum = (int32_t *)(memory += aligned(k / 32 * 4));
    a.weighted = (float *)(memory += aligned(k / group * 4));
    a.ready = (int32_t *)(memory + aligned(k / group * 4));
    return a;
}

bool long_scales(int32_t weights)
{
    return type_block[weights] == 256;
}

/* The largest magnitude of n elements, n a multiple of 16; infinite where one is no finite number. */
static float largest_magnitude(const float *x, int n)
{
    f32x16 largest = {0};
    i32x16 strange = {0};
    for (int i = 0; i < n; i += LANES) {
        f32x16 v = load16(x + i), size = (f32x16)((i32x16)v & 0x7FFFFFFF);
        strange |= (v - v) != splat(0);
        largest = choose(size > largest, size, largest);
    }
    for (int i = 0; i < LANES; i++)
        if (strange[i])
            return INFINITY;
    return max16(largest);
}

/* Round to integers, ties to even, and keep the low byte; each below 2^22. */
static void round_levels(const float *x, float factor, int n, int8_t *level)
{
    const f32x16 magic = splat(12582912.0f);
    for (int i = 0; i < n; i += LANES) {
        f32x16 v = load16(x + i) * factor + magic;
        i32x16 whole = (i32x16)v - (i32x16)magic;
        i32x16 larger = whole > 127;
        whole = (larger & 127) | (whole & ~larger);
        store_levels(level + i, whole);
    }
}

/* 32 elements as Q8_0 has them: levels of at most 127, the scale rounded to F16. */
static bool round_short(const float *x, int8_t *level, float *scale)
{
    float largest = largest_magnitude(x, 32), factor = largest != 0 ? 127.0f / largest : 0;
    if (!(factor < INFINITY) || largest == INFINITY)
        return false;
    round_levels(x, factor, 32, level);
    *scale = from_half(to_half(largest / 127.0f));
    return *scale < INFINITY;
}

/* 256 elements as Q8_K has them: the element of largest magnitude becomes -127. */
static bool round_long(const f32 *x, int8_t *level, float *scale)
{
    float largest = largest_magnitude(x, 256);
    if (largest == INFINITY)
        return false;
    if (largest == 0) {
        memset(level, 0, 256);
        memset(scale, 0, 8 * sizeof *scale);
        return true;
    }
    int at = 0;
    while (fabsf(x[at]) != largest)
        at++;
    float factor = -127.0f / x[at];
    if (!(fabsf(factor) < INFINITY))
        return false;
    round_levels(x, factor, 256, level);
    for (int i = 0; i < 8; i++)
        scale[i] = 1.0f / factor;
    return true;
}

static bool has_lowest(const int8_t *level, int n)
{
    bool found = false;
    for (int i = 0; i < n; i++)
        found |= level[i] == -128;
    return found;
}

/* Unpack a row of Q8_0, Q8_1 or Q8_K. */
static bool unpack_row(int32_t type, const uint8_t *row, int64_t k, int8_t *level, float *scale)
{
    int block = type_block[type];
    bool ready = true;
    for (int64_t i = 0; i < k; i += block, row += type_size[type]) {
        struct unpacked unpacked;
        block_types[type].unpack(row, &unpacked);
        memcpy(level + i, unpacked.level, block);
        memcpy(scale + i / 32, unpacked.scale, block / 32 * sizeof *scale);
        ready &= fabsf(unpacked.scale[0]) < INFINITY && !has_lowest(unpacked.level, block);
    }
    return ready;
}

static bool round_row(int32_t weights, const float *x, int64_t k, int8_t *level, float *scale)
{
    bool finite = true;
    if (long_scales(weights))
        for (int64_t i = 0; i < k; i += 256)
            finite &= round_long(x + i, level + i, scale + i / 32);
    else
        for (int64_t i = 0; i < k; i += 32)
            finite &= round_short(x + i, level + i, scale + i / 32);
    return finite;
}

static void add_up(const int8_t *level, const float *scale, int64_t k, int group, int32_t *sum, float *weighted)
{
    for (int64_t g = 0; g < k / group; g++) {
        int32_t total = 0;
        for (int i = 0; i < group; i++)
            total += level[g * group + i];
        sum[g] = total;
        weighted[g] = (float)total * scale[g * group / 32];
    }
}

void prepare_activations(int32_t weights, int32_t type, const uint8_t *row, int64_t k, uint8_t *memory)
{
    int group = block_types[weights].group;
    struct activations a = activations_at(memory, k, group);
    int8_t *level = (int8_t *)a.level;
    float *scale = (float *)a.scale;
    bool ready = type == GGML_TYPE_F32 ? round_row(weights, (const float *)row, k, level, scale)
                                       : unpack_row(type, row, k, level, scale);
    *(int32_t *)a.ready = ready;
    if (ready)
        add_up(level, scale, k, group, (int32_t *)a.sum, (float *)a.weighted);
}
