/* Sixteen by eight products of sixteen numbers each, by one instruction of a warp (PTX: mma.m16n8k16), and what loads their operands.

   With g = lane / 4 and t = lane % 4, a register of two 16-bit numbers holds, of A (16 x 16): a[0] row g, columns 2t and 2t + 1;
   a[1] row g + 8; a[2] and a[3] the same, 8 columns on; of B (16 x 8): b[0] column g, rows 2t and 2t + 1; b[1] 8 rows on; and of D
   (16 x 8): d[0], d[1] row g, columns 2t and 2t + 1; d[2], d[3] row g + 8.

   load_matrices reads four 8 x 8 matrices of 16-bit numbers from shared memory (PTX: ldmatrix): lane l says where row l % 8 of matrix
   l / 8 begins, at a multiple of 16 bytes; register i holds row g, columns 2t and 2t + 1 of matrix i. load_transposed: column g, rows
   2t and 2t + 1. */
#pragma once
#include "kernel.cuh"

#if defined(EMULATED)
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { emulated_mma(d, a, b, from_half); }
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { emulated_mma(d, a, b, from_bf16); }
DEVICE void load_matrices(uint32_t r[4], const uint16_t *row) { emulated_load_matrices(r, row, false); }
DEVICE void load_transposed(uint32_t r[4], const uint16_t *row) { emulated_load_matrices(r, row, true); }
DEVICE uint32_t two_halves(float low, float high) { return to_half(low) | (uint32_t)to_half(high) << 16; }
DEVICE uint32_t two_bf16(float low, float high) { return to_bf16(low) | (uint32_t)to_bf16(high) << 16; }
#elif __CUDA_ARCH__ >= 800
#define MMA(types)                                                                                                        \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." types ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"      \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                  \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { MMA("f16.f16"); }
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { MMA("bf16.bf16"); }
#define LDMATRIX(how)                                                                                                     \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" how ".shared.b16 {%0,%1,%2,%3}, [%4];"                                   \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                                                         \
                 : "r"((uint32_t)__cvta_generic_to_shared(row))                                                           \
                 : "memory")
DEVICE void load_matrices(uint32_t r[4], const uint16_t *row) { LDMATRIX(""); }
DEVICE void load_transposed(uint32_t r[4], const uint16_t *row) { LDMATRIX(".trans"); }
/* Rounded by one instruction: a NaN stays one, of whatever bits. */
DEVICE uint32_t two_halves(float low, float high)
{
    __half2 both = __floats2half2_rn(low, high);
    return *(const uint32_t *)&both;
}
DEVICE uint32_t two_bf16(float low, float high)
{
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
#else /* planners ask for these from compute capability 8.0 on only */
DEVICE void mma_f16(float *, const uint32_t *, const uint32_t *) { __trap(); }
DEVICE void mma_bf16(float *, const uint32_t *, const uint32_t *) { __trap(); }
DEVICE void load_matrices(uint32_t *, const uint16_t *) { __trap(); }
DEVICE void load_transposed(uint32_t *, const uint16_t *) { __trap(); }
DEVICE uint32_t two_halves(float, float) { __trap(); return 0; }
DEVICE uint32_t two_bf16(float, float) { __trap(); return 0; }
#endif
