/* Sixteen by eight products of sixteen numbers each, by one instruction of a warp (PTX: mma.m16n8k16).

   With g = lane / 4 and t = lane % 4, a register of two 16-bit numbers holds, of A (16 x 16): a[0] row g, columns 2t and 2t + 1;
   a[1] row g + 8; a[2] and a[3] the same, 8 columns on; of B (16 x 8): b[0] column g, rows 2t and 2t + 1; b[1] 8 rows on; and of D
   (16 x 8): d[0], d[1] row g, columns 2t and 2t + 1; d[2], d[3] row g + 8. */
#pragma once
#include "kernel.cuh"

#if defined(EMULATED)
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { emulated_mma(d, a, b, from_half); }
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { emulated_mma(d, a, b, from_bf16); }
#elif __CUDA_ARCH__ >= 800
#define MMA(types)                                                                                                        \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." types ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"      \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                  \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) { MMA("f16.f16"); }
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) { MMA("bf16.bf16"); }
#else /* launches.py asks for these from compute capability 8.0 on only */
DEVICE void mma_f16(float *, const uint32_t *, const uint32_t *) { __trap(); }
DEVICE void mma_bf16(float *, const uint32_t *, const uint32_t *) { __trap(); }
#endif
