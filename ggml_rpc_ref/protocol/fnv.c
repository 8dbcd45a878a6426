/* FNV-1a 64 in C. fnv.py has the definition, and the two facts on which it and this file rest:

   - the state after a stretch of bytes is known up to one multiplication once the low byte of the state before it is;
   - bit k of a low byte depends on the bits up to k only, so that low bytes are found bit by bit, for many bytes at once.

   Byte after byte, each step waits for the multiplication before it, four cycles of the processor. Here the low bytes of a block's
   states are found first; its four lanes then begin at once and are joined at the end. */

#include <stdint.h>

#define PRIME 0x100000001B3u
#define LANES 4
#define LANE 1024          /* bytes of a lane */
#define BLOCK (LANES * LANE)
#define WORDS (LANE / 64)  /* a word has one bit of each of 64 bytes */

static uint64_t in_turn(const uint8_t *data, int64_t size, uint64_t state)
{
    for (int64_t i = 0; i < size; i++)
        state = (state ^ data[i]) * PRIME;
    return state;
}

#ifdef __SSE2__
#include <emmintrin.h>

/* bits[k]: bit k of each of 64 bytes */
static void slice(const uint8_t *data, uint64_t bits[8][WORDS], int word)
{
    for (int k = 0; k < 8; k++)
        bits[k][word] = 0;
    for (int part = 0; part < 4; part++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(data + 16 * part));
        for (int k = 7; k >= 0; k--) {
            bits[k][word] |= (uint64_t)(uint32_t)_mm_movemask_epi8(bytes) << (16 * part);
            bytes = _mm_add_epi8(bytes, bytes); /* the next lower bit comes to the top of each byte */
        }
    }
}

/* The low byte of the state after a lane, from the one before it. The multiplication by PRIME is one by 0xb3 = 3 * 17 + 128 there:
   y = 3 x, z = y + 16 y, and x's lowest bit is added to z's highest. */
static uint8_t low_after(const uint8_t *data, uint8_t low)
{
    uint64_t bits[8][WORDS], x[8][WORDS], y[8][WORDS], carry3[WORDS] = {0}, carry17[WORDS] = {0};
    uint8_t after = 0;
    for (int w = 0; w < WORDS; w++)
        slice(data + 64 * w, bits, w);
    for (int k = 0; k < 8; k++) {
        uint64_t changes[WORDS], parity[WORDS];
        for (int w = 0; w < WORDS; w++) {
            uint64_t below = k ? x[k - 1][w] : 0, sum = 0;
            if (k >= 4)
                sum = y[k - 4][w] ^ carry17[w];
            if (k == 7)
                sum ^= x[0][w];
            changes[w] = bits[k][w] ^ below ^ carry3[w] ^ sum;
        }
        /* bit i becomes the parity of bits 0 to i: whether bit k of the state has changed since the word began */
        for (int w = 0; w < WORDS; w++) {
            uint64_t p = changes[w];
            p ^= p << 1, p ^= p << 2, p ^= p << 4, p ^= p << 8, p ^= p << 16, p ^= p << 32;
            parity[w] = p;
        }
        uint64_t before = -(uint64_t)(low >> k & 1);
        for (int w = 0; w < WORDS; w++) {
            x[k][w] = (parity[w] << 1 ^ before) ^ bits[k][w];
            before ^= -(parity[w] >> 63);
        }
        after |= (uint8_t)((before & 1) << k);
        for (int w = 0; w < WORDS; w++) {
            uint64_t a = x[k][w], b = k ? x[k - 1][w] : 0, c = carry3[w];
            y[k][w] = a ^ b ^ c;
            carry3[w] = (a & b) | (c & (a ^ b));
            if (k >= 4) {
                uint64_t d = y[k][w], e = y[k - 4][w], f = carry17[w];
                carry17[w] = (d & e) | (f & (d ^ e));
            }
        }
    }
    return after;
}

static uint64_t to_the(uint64_t base, int power)
{
    uint64_t result = 1;
    while (power--)
        result *= base;
    return result;
}

static uint64_t in_lanes(const uint8_t *data, uint64_t state, uint64_t across)
{
    uint64_t begin[LANES], end[LANES];
    begin[0] = state;
    for (int lane = 1; lane < LANES; lane++)
        begin[lane] = low_after(data + (lane - 1) * LANE, (uint8_t)begin[lane - 1]);
    for (int lane = 0; lane < LANES; lane++)
        end[lane] = begin[lane];
    for (int line = 0; line < BLOCK; line += 64) {
        /* the next block: slices and lanes jump about in theirs, and the processor does not guess that it comes. 64 MiB, which no
           cache holds, at 1.8 GB/s instead of 0.8. Beyond the end of the data too, where it reads nothing */
        __builtin_prefetch(data + BLOCK + line);
        for (int i = line / LANES; i < (line + 64) / LANES; i++)
            for (int lane = 0; lane < LANES; lane++)
                end[lane] = (end[lane] ^ data[lane * LANE + i]) * PRIME;
    }
    state = end[0];
    for (int lane = 1; lane < LANES; lane++)
        state = end[lane] + (state - begin[lane]) * across;
    return state;
}
#endif

uint64_t fnv1a(const uint8_t *data, int64_t size, uint64_t state)
{
#ifdef __SSE2__
    const uint64_t across = to_the(PRIME, LANE);
    for (; size >= BLOCK; data += BLOCK, size -= BLOCK)
        state = in_lanes(data, state, across);
#endif
    return in_turn(data, size, state);
}
