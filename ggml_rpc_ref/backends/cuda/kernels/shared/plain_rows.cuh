/* Products of weights that are F32, F16 or BF16 with one row of src1, or a few, in float32: eight elements at a time. */
#pragma once
#include "eights.cuh"
#include "rounded.cuh"

typedef void (*eight_plain_of)(const struct operand *, const uint8_t *, int, float *);

/* This thread's share of the products of ROWS rows of weights with COLUMNS rows of float32. */
template <eight_plain_of eight, int ROWS, int COLUMNS>
DEVICE void multiply_eights(const struct operand *w, const uint8_t *const *weights, const uint8_t *const *x, int units, int thread,
                            int threads, float (*sum)[COLUMNS])
{
#pragma unroll(COLUMNS == 1 ? 2 : 1)
    for (int unit = thread; unit < units; unit += threads) {
        float a[ROWS][8], b[8];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            eight(w, weights[r], unit, a[r]);
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            eight_f32(NULL, x[c], unit, b);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
#pragma unroll
                for (int i = 0; i < 8; i++)
                    sum[r][c] = fmaf(a[r][i], b[i], sum[r][c]);
        }
    }
}
