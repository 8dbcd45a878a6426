/* Products of signed bytes with NEON, exact: four in a lane of 32 bits at a time where the processor has an instruction for that
   (FEAT_DotProd, the variant `dotprod`), else in sixteen bits first.

   An activation is at most 127, never -128 (`activations.h`), so that two products of any levels fit sixteen bits. */
#pragma once
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

/* Sixteen products added to four sums. Which of them go into the same sum depends on the variant. */
static inline int32x4_t add_products(int32x4_t sum, int8x16_t w, int8x16_t x)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, w, x);
#else
    return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x));
#endif
}

/* How many words of levels may be added up in `struct narrow`: 2 n products of a level, at most `most` in magnitude, and an
   activation are then added in sixteen bits. */
static inline int words_in_16_bits(int most)
{
    int fit = INT16_MAX / (2 * 127 * most);
    return fit >= 8 ? 8 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

#if !defined(__ARM_FEATURE_DOTPROD)
/* Products of levels of four rows, four of each, with four activations, in two registers: rows 0 and 1, rows 2 and 3; four sums
   of a row each. How often they may be added to before they are widened depends on the levels. */
struct narrow {
    int16x8_t low, high;
};

static inline struct narrow no_products(void) { return (struct narrow){vdupq_n_s16(0), vdupq_n_s16(0)}; }

static inline struct narrow add_narrow(struct narrow n, int8x16_t w, const int8_t *x)
{
    int32_t word;
    memcpy(&word, x, sizeof word);
    int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(word));
    return (struct narrow){vmlal_s8(n.low, vget_low_s8(w), vget_low_s8(four)), vmlal_high_s8(n.high, w, four)};
}

/* Added to the sums of four rows, a lane each. Two sums of a row are added in sixteen bits before they are widened. */
static inline int32x4_t add_widened(int32x4_t sum, struct narrow n) { return vpadalq_s16(sum, vpaddq_s16(n.low, n.high)); }
#endif
