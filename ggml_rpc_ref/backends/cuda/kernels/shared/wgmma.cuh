/* Sixty-four by N products of sixteen numbers each, by one instruction of a warpgroup, four warps that follow each other (PTX:
   wgmma.mma_async.m64nNk16). Compute capability 9.0 only, compiled for sm_90a.

   Both operands are read from shared memory while the warps go on: the products are there after wait_for_products. With w = the warp in
   its warpgroup, g = lane / 4 and t = lane % 4, d[4 n + 2 r + c] is row 16 w + g + 8 r, column 8 n + 2 t + c.

   What an operand is like says a word of 64 bits, whose numbers are bytes divided by 16: bits 0-13 where it begins, 16-29 an offset
   that layouts like this one have no use for (1), 32-45 from eight rows to the next eight, 62-63 how pieces of 16 bytes change places: 1
   means that they do so in rows of 128 bytes, piece p of row r with piece p ^ r % 8, which is what a tensor map with
   CU_TENSOR_MAP_SWIZZLE_128B leaves. The hardware takes r % 8 from bits 7-9 of an address; so eight rows begin at a multiple of 1024
   bytes, and sixteen numbers further along the rows begin 32 bytes further. */
#pragma once
#include "tensor_maps.cuh"

#define WGMMA_ROWS 64
#define WGMMA_DEPTH 16
#define SWIZZLE_ROW 128 /* bytes */
#define SWIZZLE_EIGHT (8 * SWIZZLE_ROW)

/* Rows of SWIZZLE_ROW bytes each, from the first on. */
DEVICE uint64_t operand_at(uint32_t address)
{
    return (address & 0x3FFFF) >> 4 | 1ull << 16 | (uint64_t)(SWIZZLE_EIGHT >> 4) << 32 | 1ull << 62;
}

/* The same, so many bytes further along the rows. */
DEVICE uint64_t further(uint64_t operand, int bytes) { return operand + (uint64_t)(bytes >> 4); }

#if defined(EMULATED)
template <int N> DEVICE void begin_products(float (&)[N / 2]) { emulated_wgmma_fence(); }
template <int N, bool F16> DEVICE void add_products(float (&d)[N / 2], uint64_t a, uint64_t b)
{
    emulated_wgmma(d, N, a, b, F16 ? from_half : from_bf16);
}
DEVICE void close_products() { emulated_wgmma_commit(); }
template <int N, int NEWEST> DEVICE void wait_for_products(float (&)[N / 2]) { emulated_wgmma_wait(NEWEST); }
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WGMMA(n, types, registers, a, b)                                                                                  \
    "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n" n "k16.f32." types " " registers         \
    ", " a ", " b ", add, 1, 1, 0, 0; }"
#define REGISTERS_64 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define REGISTERS_128 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63," \
    " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79," \
    " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95," \
    " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111," \
    " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define PRODUCTS_64 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define PRODUCTS_128 \
    "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
    "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), \
    "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
    "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), \
    "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), \
    "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), \
    "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), \
    "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]), \
    "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), \
    "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), \
    "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), \
    "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), \
    "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), \
    "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), \
    "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), \
    "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])

/* Registers must not be moved past this: the compiler does not know that products are still being added to them. */
template <int COUNT> DEVICE void hold(float (&d)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* Before the first add_products, and where d was read or written otherwise. */
template <int N> DEVICE void begin_products(float (&d)[N / 2])
{
    hold(d);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* d += A B^T: rows of 16 numbers each, 64 of A and N of B. */
template <int N, bool F16> DEVICE void add_products(float (&d)[N / 2], uint64_t a, uint64_t b)
{
    static_assert(N == 128 || N == 256, "for which there are lists of registers");
    if constexpr (N == 256 && F16)
        asm volatile(WGMMA("256", "f16.f16", REGISTERS_128, "%128", "%129") : PRODUCTS_128 : "l"(a), "l"(b));
    else if constexpr (N == 256)
        asm volatile(WGMMA("256", "bf16.bf16", REGISTERS_128, "%128", "%129") : PRODUCTS_128 : "l"(a), "l"(b));
    else if constexpr (F16)
        asm volatile(WGMMA("128", "f16.f16", REGISTERS_64, "%64", "%65") : PRODUCTS_64 : "l"(a), "l"(b));
    else
        asm volatile(WGMMA("128", "bf16.bf16", REGISTERS_64, "%64", "%65") : PRODUCTS_64 : "l"(a), "l"(b));
}

/* What was begun since the last time is a group. */
DEVICE void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* Wait for all groups but so many of the newest. */
template <int N, int NEWEST> DEVICE void wait_for_products(float (&d)[N / 2])
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(NEWEST) : "memory");
    if (NEWEST == 0)
        hold(d);
}
#else /* planners ask for these on compute capability 9.0 only */
template <int N> DEVICE void begin_products(float (&)[N / 2]) { __trap(); }
template <int N, bool F16> DEVICE void add_products(float (&)[N / 2], uint64_t, uint64_t) { __trap(); }
DEVICE void close_products() { __trap(); }
template <int N, int NEWEST> DEVICE void wait_for_products(float (&)[N / 2]) { __trap(); }
#endif
