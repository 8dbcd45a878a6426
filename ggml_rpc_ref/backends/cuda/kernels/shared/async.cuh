/* Copies into shared memory that go on while the thread does something else (PTX: cp.async), and what asks for memory in advance. */
#pragma once
#include "kernel.cuh"

#if defined(EMULATED)
DEVICE void copy_later(void *to, const void *from) { emulated_copy_later(to, from); }
DEVICE void wait_for_copies() { emulated_wait_for_copies(); }
DEVICE void close_group() { emulated_close_group(); }
template <int NEWEST> DEVICE void wait_for_groups() { emulated_wait_for_groups(NEWEST); }
DEVICE void ask_for(const void *p) { emulated_touch(p); }
#else
/* Have the line that this address lies in brought to the L2 cache. */
DEVICE void ask_for(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
#if __CUDA_ARCH__ >= 800
/* Sixteen bytes, both sides at multiples of 16. They are there once this thread has waited; for other threads, a barrier later. */
DEVICE void copy_later(void *to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
DEVICE void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
/* The copies that this thread has begun since it last closed a group are a group; none of them is one, too. */
DEVICE void close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Wait for the copies of all groups but so many of the newest. */
template <int NEWEST> DEVICE void wait_for_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory"); }
#else /* planners ask for these from compute capability 8.0 on only */
DEVICE void copy_later(void *, const void *) { __trap(); }
DEVICE void wait_for_copies() { __trap(); }
DEVICE void close_group() { __trap(); }
template <int NEWEST> DEVICE void wait_for_groups() { __trap(); }
#endif
#endif
