/* Tiles of tensors that a machine of its own brings to shared memory (PTX: cp.async.bulk.tensor), and the barriers that say when they
   are there (PTX: mbarrier). Compute capability 9.0 and later.

   A tensor map says where a tensor lies, how long its dimensions and strides are, and what a tile of it is (a box); the driver packs it
   (cuTensorMapEncodeTiled; driver.py). What of a box lies beyond the tensor becomes zeros, which count as bytes that have come.

   A barrier has phases, numbered from 0. A phase is over once as many threads as it was made for have arrived, and all bytes have come
   that were announced; then the next one begins. Waiting is for the end of a phase of a parity: of the newest phase that has this
   parity. So a wait for parity 1 passes before phase 0 is over: there was nothing to wait for. */
#pragma once
#include "kernel.cuh"

#define LONGEST_WAIT (1ll << 35) /* cycles; some twenty seconds, for what takes microseconds */

/* CUtensorMap of cuda.h, which says nothing of what is in it. */
struct __align__(128) tensor_map {
    uint64_t opaque[16];
};

/* A node whose launch adds tensor maps: of src0, and of the narrow rows of src1 (narrow.cuh). */
struct mapped_geometry {
    struct geometry g;
    struct tensor_map weights, rows;
};

#if defined(EMULATED)
#define MAPPED_ARGUMENT const struct mapped_geometry &m
#else
#define MAPPED_ARGUMENT const __grid_constant__ struct mapped_geometry m
#endif
/* A kernel that gets such a node; so many threads a block, one block to a multiprocessor. */
#define MAPPED_KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) kernel_##name(MAPPED_ARGUMENT)

#if defined(EMULATED)
DEVICE uint32_t shared_address(const void *p) { return emulated_shared_address(p); }
DEVICE void barrier_init(uint64_t *b, int arrivals) { emulated_barrier_init(b, arrivals); }
DEVICE void barriers_are_made() { emulated_fence_async(); }
DEVICE void barrier_arrive(uint64_t *b) { emulated_barrier_arrive(b, 0); }
DEVICE void barrier_announce(uint64_t *b, int bytes) { emulated_barrier_arrive(b, bytes); }
DEVICE void barrier_wait(uint64_t *b, int parity) { emulated_barrier_wait(b, parity); }
DEVICE void barrier_wait_or_trap(uint64_t *b, int parity) { emulated_barrier_wait(b, parity); }
DEVICE void copy_box(const struct tensor_map *map, void *to, uint64_t *b, int i0, int i1, int i2, int i3)
{
    emulated_copy_box(map, to, b, i0, i1, i2, i3);
}
#else
DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }
#if __CUDA_ARCH__ >= 900
/* One thread makes a barrier; the others may use it after __syncthreads, copies after barriers_are_made. */
DEVICE void barrier_init(uint64_t *b, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
DEVICE void barriers_are_made()
{
    asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory");
}
DEVICE void barrier_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
/* Arrive, and announce bytes of this phase. */
DEVICE void barrier_announce(uint64_t *b, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
/* Whether a phase is over by now, or within a while that the system chooses. */
DEVICE bool barrier_is_over(uint64_t *b, int parity)
{
    uint32_t over;
    asm volatile("{ .reg .pred over; mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2; selp.u32 %0, 1, 0, over; }"
                 : "=r"(over)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
    return over;
}
DEVICE void barrier_wait(uint64_t *b, int parity)
{
    while (!barrier_is_over(b, parity))
        ;
}
/* A launch can't be stopped: one whose bytes don't come ends by a trap, an error, rather than never. Not for threads with products
   under way: since a trap could end them there, the compiler would have each product waited for. */
DEVICE void barrier_wait_or_trap(uint64_t *b, int parity)
{
    for (long long begun = clock64(); !barrier_is_over(b, parity);)
        if (clock64() - begun > LONGEST_WAIT)
            __trap();
}
/* Begin to bring the box that begins at these indices; its bytes count for the barrier as they come. `to`: a multiple of 128 bytes. */
DEVICE void copy_box(const struct tensor_map *map, void *to, uint64_t *b, int i0, int i1, int i2, int i3)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::
                     "r"(shared_address(to)), "l"((uint64_t)map), "r"(shared_address(b)), "r"(i0), "r"(i1), "r"(i2), "r"(i3)
                 : "memory");
}
#else /* planners ask for these on compute capability 9.0 only */
DEVICE void barrier_init(uint64_t *, int) { __trap(); }
DEVICE void barriers_are_made() { __trap(); }
DEVICE void barrier_arrive(uint64_t *) { __trap(); }
DEVICE void barrier_announce(uint64_t *, int) { __trap(); }
DEVICE void barrier_wait(uint64_t *, int) { __trap(); }
DEVICE void barrier_wait_or_trap(uint64_t *, int) { __trap(); }
DEVICE void copy_box(const struct tensor_map *, void *, uint64_t *, int, int, int, int) { __trap(); }
#endif
#endif
