/* See packed.h. For each 32 elements, in this order behind one another for the whole length, R being PACKED_ROWS: what the type has of

       levels  Q8_0 [8 words][R rows], four levels a word
               Q4_0, Q5_0 [4][R rows]: word i in the low halves of the bytes, word i + 4 in the high ones; 8 and 16 added to levels
       bits    Q5_0: the fifth bit of each level, as the variant wants them
       scales  [R rows], F16 */
#include "packed.h"

#if defined(__AVX2__) || defined(NEON)

#define EACH_WORD(i, n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

static int level_bytes(int32_t type) { return (type == GGML_TYPE_Q8_0 ? 32 : 16) * PACKED_ROWS; }
static int bit_bytes(int32_t type) { return type == GGML_TYPE_Q5_0 ? 4 * PACKED_ROWS : 0; }

int64_t packed_size(int32_t type, int64_t k)
{
    if (type != GGML_TYPE_Q8_0 && type != GGML_TYPE_Q5_0 && type != GGML_TYPE_Q4_0)
        return 0;
    return aligned(k / 32 * (level_bytes(type) + bit_bytes(type) + 2 * PACKED_ROWS));
}

/* Where a group's arrays lie. */
struct packed {
    uint8_t *levels, *bits, *scales;
};

static struct packed packed_at(int32_t type, const uint8_t *memory, int64_t k)
{
    uint8_t *levels = (uint8_t *)memory, *bits = levels + k / 32 * level_bytes(type);
    return (struct packed){levels, bits, bits + k / 32 * bit_bytes(type)};
}

#if defined(__AVX512VNNI__)
#include "packed_avx512.h"
#elif defined(NEON)
#include "packed_neon.h"
#else
#include "packed_avx2.h"
#endif

#if defined(__AVX512VNNI__) || defined(NEON) /* a function for each type, made from one text */
void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to)
{
    if (type == GGML_TYPE_Q8_0)
        multiply_typed(GGML_TYPE_Q8_0, packed, a, k, to);
    else if (type == GGML_TYPE_Q5_0)
        multiply_typed(GGML_TYPE_Q5_0, packed, a, k, to);
    else
        multiply_typed(GGML_TYPE_Q4_0, packed, a, k, to);
}
#endif

/* 32 levels of a row. */
static void pack_levels(int32_t type, const int8_t *level, int row, struct packed to)
{
    if (type == GGML_TYPE_Q8_0) {
        for (int i = 0; i < 32; i++)
            to.levels[4 * PACKED_ROWS * (i / 4) + 4 * row + i % 4] = (uint8_t)(level[i] + OFFSET_Q8_0);
        return;
    }
    int offset = -block_types[type].lowest;
    for (int i = 0; i < 16; i++) {
        int low = level[i] + offset, high = level[i + 16] + offset, word = i / 4, at = 4 * row + i % 4;
        to.levels[4 * PACKED_ROWS * word + at] = (uint8_t)((low & 15) | (high & 15) << 4);
        if (type == GGML_TYPE_Q5_0) {
            put_fifth_bit(to.bits, word, at, low >> 4);
            put_fifth_bit(to.bits, word + 4, at, high >> 4);
        }
    }
}

void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to)
{
    memset(packed_at(type, to, k).bits, 0, (size_t)(k / 32 * bit_bytes(type)));
    for (int row = 0; row < PACKED_ROWS; row++) {
        struct packed p = packed_at(type, to, k);
        const uint8_t *block = rows + row * stride;
        for (int64_t i = 0; i < k / 32; i++, block += type_size[type]) {
            struct unpacked unpacked;
            block_types[type].unpack(block, &unpacked);
            pack_levels(type, unpacked.level, row, p);
            memcpy(p.scales + 2 * row, block, 2); /* each of these types begins with it */
            p.levels += level_bytes(type);
            p.bits += bit_bytes(type);
            p.scales += 2 * PACKED_ROWS;
        }
    }
}

#else

int64_t packed_size(int32_t type, int64_t k)
{
    (void)type, (void)k;
    return 0;
}

void pack_rows(int32_t type, const uint8_t *rows, int64_t stride, int64_t k, uint8_t *to)
{
    (void)type, (void)rows, (void)stride, (void)k, (void)to;
}

void multiply_packed(int32_t type, const uint8_t *packed, const struct activations *a, int64_t k, float *to)
{
    (void)type, (void)packed, (void)a, (void)k, (void)to;
}

#endif
