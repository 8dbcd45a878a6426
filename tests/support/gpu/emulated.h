/* A GPU made of threads: what CUDA's compiler gives a kernel, for g++. Included before everything else (`tests/support/gpu`).

   The threads of a block are fibers of one thread of the processor: each runs until it waits for others, at a barrier or in a
   function of a whole warp, and then another one runs. A warp runs as far ahead of the others as barriers allow; which one is
   first, and which lane, is the first, the last, or drawn anew each time. So a kernel that lacks a barrier reads what another
   thread has not written yet, or overwrites what another one has not read yet, in one order at least. Shared memory is filled with
   NaN before each block; a barrier that some threads never reach, a warp's function without all its lanes, and an access to
   memory that is not there end the launch with a sentence, as a sticky error does on a GPU.

   One launch runs at a time. x86-64 only, because of the switch between stacks. */
#pragma once
#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif
#define EMULATED 1

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* -------------------------------------------------------------------------------------------------------------- words */

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
/* In a section of their own, which is filled with NaN before each block. */
#define __shared__ static __attribute__((section("emulated_shared"), aligned(16)))

struct uint3 {
    unsigned x, y, z;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};

/* ------------------------------------------------------------------------------------------------------------- fibers */

enum { LANES_OF_WARP = 32, MOST_THREADS = 1024, STACK = 128 * 1024, PAYLOAD = 64, SIGNAL_STACK = 64 * 1024 };

struct fiber {
    void *stack_pointer;
    char *stack;
    int started, done;
    long awaits;        /* the generation of what it waits for must exceed this */
    const long *of;     /* NULL: it can run */
};

struct warp {
    long generation;
    int arrived;
    char payload[2][LANES_OF_WARP][PAYLOAD];
};

static struct {
    struct fiber fiber[MOST_THREADS];
    struct warp warp[MOST_THREADS / LANES_OF_WARP];
    int threads, alive, current, at_barrier;
    long barrier;
    void *scheduler;
    void (*kernel)(const void *);
    const void *argument;
    char *free_stack[MOST_THREADS];
    int free_stacks;
    uint8_t *dynamic_shared;
    const char *fault;
    char sentence[200];
    sigjmp_buf escape;
    uint32_t random;
    int kind; /* the order of the threads: 0 forward, 1 backward, more: drawn */
} emulated;

static uint3 gridDim, blockDim, blockIdx, threadIdx;

extern "C" void emulated_switch(void **save, void *load);
__asm__(".text\n.hidden emulated_switch\n.type emulated_switch,@function\nemulated_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

static inline void to_scheduler() { emulated_switch(&emulated.fiber[emulated.current].stack_pointer, emulated.scheduler); }

/* End the launch: the other fibers are left where they are. */
static void fault(const char *what)
{
    snprintf(emulated.sentence, sizeof emulated.sentence, "%s (block %u,%u,%u, thread %d)", what, blockIdx.x, blockIdx.y, blockIdx.z,
             emulated.current);
    emulated.fault = emulated.sentence;
    to_scheduler();
    __builtin_unreachable();
}

static void body()
{
    emulated.kernel(emulated.argument);
    emulated.fiber[emulated.current].done = 1;
    to_scheduler();
    __builtin_unreachable();
}

static void start(struct fiber *f)
{
    if (!emulated.free_stacks)
        emulated.free_stack[emulated.free_stacks++] =
            (char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->stack = emulated.free_stack[--emulated.free_stacks];
    void **top = (void **)(f->stack + STACK);
    *--top = NULL; /* the return address of `body`, so that its stack is aligned as after a call */
    *--top = (void *)body;
    f->stack_pointer = top - 6;
    f->started = 1;
}

static void wait_for(const long *generation)
{
    struct fiber *f = &emulated.fiber[emulated.current];
    f->awaits = *generation;
    f->of = generation;
    to_scheduler();
}

static inline void __syncthreads()
{
    if (emulated.alive != emulated.threads)
        fault("a barrier that a thread which has ended does not reach");
    if (++emulated.at_barrier == emulated.threads) {
        emulated.at_barrier = 0;
        emulated.barrier++;
    } else {
        wait_for(&emulated.barrier);
    }
}

/* All lanes of the warp come here with `size` bytes each; returns what they brought, lane by lane. */
static char (*together(unsigned mask, const void *mine, int size))[PAYLOAD]
{
    int thread = emulated.current, first = thread / LANES_OF_WARP * LANES_OF_WARP;
    struct warp *w = &emulated.warp[thread / LANES_OF_WARP];
    if (mask != 0xffffffffu || first + LANES_OF_WARP > emulated.threads)
        fault("a function of a warp without all its lanes");
    for (int lane = 0; lane < LANES_OF_WARP; lane++)
        if (emulated.fiber[first + lane].done)
            fault("a function of a warp that a lane which has ended does not reach");
    char (*payload)[PAYLOAD] = w->payload[w->generation & 1];
    memcpy(payload[thread - first], mine, size);
    if (++w->arrived == LANES_OF_WARP) {
        w->arrived = 0;
        w->generation++;
    } else {
        wait_for(&w->generation);
    }
    return payload;
}

static inline int lane_now() { return emulated.current % LANES_OF_WARP; }

template <typename T> static inline T __shfl_sync(unsigned mask, T x, int lane)
{
    T y;
    memcpy(&y, together(mask, &x, sizeof x)[lane & 31], sizeof y);
    return y;
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int step) { return __shfl_sync(mask, x, lane_now() ^ step); }

template <typename T> static inline T __shfl_down_sync(unsigned mask, T x, int step)
{
    int lane = lane_now();
    return __shfl_sync(mask, x, lane + step < LANES_OF_WARP ? lane + step : lane);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    char nothing = 0;
    together(mask, &nothing, 1);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    char bit = predicate != 0;
    char (*all)[PAYLOAD] = together(mask, &bit, 1);
    unsigned found = 0;
    for (int lane = 0; lane < LANES_OF_WARP; lane++)
        found |= (unsigned)all[lane][0] << lane;
    return found;
}

static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

/* ---------------------------------------------------------------------------------------------------------- arithmetic */

template <typename T> static inline T atomicAdd(T *p, T x)
{
    T old = *p;
    *p = old + x;
    return old;
}

static inline int atomicCAS(int *p, int expected, int x)
{
    int old = *p;
    if (old == expected)
        *p = x;
    return old;
}

static inline int atomicMax(int *p, int x)
{
    int old = *p;
    *p = x > old ? x : old;
    return old;
}

static inline int __popc(unsigned x) { return __builtin_popcount(x); }

static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> (shift & 31));
}

/* The sum of four products of signed bytes, added to c. */
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c += (int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
    return c;
}

template <typename T> static inline T __ldg(const T *p) { return *p; }

static inline uint8_t *emulated_dynamic_shared() { return emulated.dynamic_shared; }

/* What `kernels/shared/mma.cuh` writes as one instruction: D = A B + C of a warp, fragments as PTX lays them out for m16n8k16.
   Group g is lane / 4, t is lane % 4; registers hold two halves each, the first one low. */
static inline void emulated_mma(float d[4], const uint32_t a[4], const uint32_t b[2], float (*widen)(uint16_t))
{
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    char (*all)[PAYLOAD] = together(0xffffffffu, mine, sizeof mine);
    for (int i = 0; i < 4; i++) {
        int row = lane_now() / 4 + (i & 2 ? 8 : 0), column = lane_now() % 4 * 2 + (i & 1);
        float sum = d[i];
        for (int k = 0; k < 16; k++) {
            uint32_t x, y;
            int t = k % 8 / 2;
            memcpy(&x, all[row % 8 * 4 + t] + 4 * ((row >= 8) + 2 * (k >= 8)), 4);
            memcpy(&y, all[column * 4 + t] + 4 * (4 + (k >= 8)), 4);
            sum += widen((uint16_t)(x >> 16 * (k & 1))) * widen((uint16_t)(y >> 16 * (k & 1)));
        }
        d[i] = sum;
    }
}

/* The twin of ldmatrix (`kernels/shared/mma.cuh`): each lane brings the row of 16 bytes that it points to. */
static inline void emulated_load_matrices(uint32_t r[4], const uint16_t *row, bool transposed)
{
    uint16_t mine[8];
    if ((uintptr_t)row % 16)
        fault("a row of a matrix at a misaligned address");
    memcpy(mine, row, sizeof mine);
    char (*all)[PAYLOAD] = together(0xffffffffu, mine, sizeof mine);
    int group = lane_now() / 4, pair = lane_now() % 4 * 2;
    for (int i = 0; i < 4; i++) {
        uint16_t two[2];
        for (int k = 0; k < 2; k++) {
            int y = transposed ? pair + k : group, x = transposed ? group : pair + k;
            memcpy(&two[k], all[8 * i + y] + 2 * x, 2);
        }
        r[i] = two[0] | (uint32_t)two[1] << 16;
    }
}

static uint32_t next_random()
{
    emulated.random ^= emulated.random << 13;
    emulated.random ^= emulated.random >> 17;
    return emulated.random ^= emulated.random << 5;
}

/* What was begun is done as late as a GPU may do it, at once, or at either time, by the order of the threads: late shows who did not wait
   for it, early shows who gave it memory that was still in use. */
enum early_or_late { LATE, EARLY, EITHER };

static inline bool is_early()
{
    return emulated.kind == EARLY || (emulated.kind >= EITHER && next_random() % 2);
}

/* The twin of cp.async (`kernels/shared/async.cuh`): a copy is made at once, or when its thread waits for it. */
enum { MOST_COPIES = 64 };

static struct {
    struct {
        void *to;
        const void *from;
        int group;
    } copy[MOST_COPIES];
    int count, groups; /* copies that are not made; groups that are closed */
} later[MOST_THREADS];

static inline void emulated_copy_later(void *to, const void *from)
{
    auto *mine = &later[emulated.current];
    if (((uintptr_t)to | (uintptr_t)from) % 16)
        fault("a copy into shared memory at a misaligned address");
    if (is_early()) {
        memcpy(to, from, 16);
        return;
    }
    if (mine->count == MOST_COPIES)
        fault("more copies into shared memory than the emulation keeps");
    mine->copy[mine->count++] = {to, from, mine->groups};
}

static inline void emulated_close_group() { later[emulated.current].groups++; }

/* Make the copies of a thread's groups before this one. */
static inline void make_copies(int before)
{
    auto *mine = &later[emulated.current];
    int left = 0;
    for (int i = 0; i < mine->count; i++)
        if (mine->copy[i].group < before)
            memcpy(mine->copy[i].to, mine->copy[i].from, 16);
        else
            mine->copy[left++] = mine->copy[i];
    mine->count = left;
}

/* Those of all closed groups but so many of the newest; and all of them, of no group yet as well. */
static inline void emulated_wait_for_groups(int newest) { make_copies(later[emulated.current].groups - newest); }
static inline void emulated_wait_for_copies() { make_copies(later[emulated.current].groups + 1); }

/* The twin of a prefetch: the address must be one that could be read. */
static inline void emulated_touch(const void *p) { (void)*(const volatile char *)p; }

#include "hopper.h"

/* -------------------------------------------------------------------------------------------------------------- launch */

/* Where the linker has put all shared memory; hidden, so that each library finds its own. */
extern char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

enum { POISON = 0xFF };

static void arrange(int *order, int n)
{
    for (int i = 0; i < n; i++)
        order[i] = emulated.kind == 1 ? n - 1 - i : i;
    for (int i = n - 1; emulated.kind > 1 && i > 0; i--) {
        int j = (int)(next_random() % (uint32_t)(i + 1)), swapped = order[i];
        order[i] = order[j];
        order[j] = swapped;
    }
}

static void resume(int thread)
{
    struct fiber *f = &emulated.fiber[thread];
    if (!f->started)
        start(f);
    f->of = NULL;
    emulated.current = thread;
    threadIdx = {(unsigned)thread % blockDim.x, (unsigned)thread / blockDim.x % blockDim.y, (unsigned)thread / blockDim.x / blockDim.y};
    emulated_switch(&emulated.scheduler, f->stack_pointer);
    if (f->done) {
        emulated.alive--;
        emulated.free_stack[emulated.free_stacks++] = f->stack;
        f->stack = NULL;
    }
}

/* Let a warp run as far as it comes without others; returns whether it came any further. */
static int run_warp(int warp)
{
    int first = warp * LANES_OF_WARP, lanes = emulated.threads - first, order[LANES_OF_WARP], any = 0, moved;
    lanes = lanes < LANES_OF_WARP ? lanes : LANES_OF_WARP;
    do {
        moved = 0;
        arrange(order, lanes);
        for (int i = 0; i < lanes && !emulated.fault; i++) {
            struct fiber *f = &emulated.fiber[first + order[i]];
            if (f->done || (f->of && *f->of <= f->awaits))
                continue;
            any = moved = 1;
            resume(first + order[i]);
        }
    } while (moved && !emulated.fault);
    return any;
}

/* One warp runs ahead of the others as far as barriers allow, so that what they have not read yet is overwritten if it can be. */
static void run_block()
{
    int order[MOST_THREADS / LANES_OF_WARP], warps = (emulated.threads + LANES_OF_WARP - 1) / LANES_OF_WARP;
    emulated.alive = emulated.threads;
    emulated.at_barrier = 0;
    memset(emulated.fiber, 0, sizeof emulated.fiber[0] * (size_t)emulated.threads);
    for (int i = 0; i < emulated.threads; i++)
        later[i].count = later[i].groups = 0;
    reset_hopper();
    for (int w = 0; w < warps; w++)
        emulated.warp[w].arrived = 0;
    while (emulated.alive && !emulated.fault) {
        int moved = 0;
        long barrier = emulated.barrier;
        arrange(order, warps);
        for (int w = 0; w < warps && !emulated.fault && barrier == emulated.barrier; w++)
            moved |= run_warp(order[w]);
        if (!emulated.fault && (!moved || (emulated.kind > 1 && next_random() % 2)))
            moved |= bring_any_box();
        if (!moved && !emulated.fault)
            emulated.fault = "threads of a block wait for others that never come";
    }
    if (!emulated.fault && boxes.count)
        emulated.fault = "a block that ends before all boxes have come";
    for (int i = 0; i < emulated.threads; i++)
        if (emulated.fiber[i].stack) /* left behind by a fault */
            emulated.free_stack[emulated.free_stacks++] = emulated.fiber[i].stack;
}

static void caught(int signal, siginfo_t *info, void *)
{
    snprintf(emulated.sentence, sizeof emulated.sentence, "%s at %p (block %u, thread %d)",
             signal == SIGILL ? "a misaligned address" : "an illegal address", signal == SIGILL ? NULL : info->si_addr, blockIdx.x,
             emulated.current);
    emulated.fault = emulated.sentence;
    siglongjmp(emulated.escape, 1);
}

static const int signals[] = {SIGSEGV, SIGBUS, SIGILL};

static void run_blocks(const unsigned *grid, int shared)
{
    uint8_t *memory = window_of_shared;
    emulated.dynamic_shared = memory + GUARD_AROUND_SHARED;
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++) {
                memset(memory, POISON, 2 * GUARD_AROUND_SHARED + (size_t)shared);
                if (__start_emulated_shared)
                    memset(__start_emulated_shared, POISON, (size_t)(__stop_emulated_shared - __start_emulated_shared));
                run_block();
                for (int i = 0; i < GUARD_AROUND_SHARED && !emulated.fault; i++)
                    if (memory[i] != POISON || memory[GUARD_AROUND_SHARED + shared + i] != POISON)
                        emulated.fault = "a write beyond dynamic shared memory";
                if (emulated.fault)
                    return;
            }
}

/* Run a kernel; kind 0: threads forward, 1: backward, more: in an order drawn from it. Returns NULL or what went wrong. */
extern "C" __global__ const char *emulated_launch(void (*kernel)(const void *), const unsigned *grid, const unsigned *block, int shared,
                                                  const void *argument, int kind)
{
    static char signal_stack[SIGNAL_STACK];
    struct sigaction action = {}, before[3];
    stack_t mine = {}, other;
    emulated.fault = NULL;
    emulated.kernel = kernel;
    emulated.argument = argument;
    emulated.random = 2463534242u + (uint32_t)kind;
    emulated.kind = kind;
    emulated.threads = (int)(block[0] * block[1] * block[2]);
    if (emulated.threads > MOST_THREADS || emulated.threads < 1 || shared > MOST_SHARED)
        return "a launch that no GPU would take";
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    mine.ss_sp = signal_stack;
    mine.ss_size = sizeof signal_stack;
    action.sa_sigaction = caught;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaltstack(&mine, &other);
    for (int i = 0; i < 3; i++)
        sigaction(signals[i], &action, &before[i]);
    if (!sigsetjmp(emulated.escape, 1))
        run_blocks(grid, shared);
    for (int i = 0; i < 3; i++)
        sigaction(signals[i], &before[i], NULL);
    sigaltstack(&other, NULL);
    return emulated.fault;
}

/* Memory that ends where no more memory is, so that what lies beyond can't be touched. The size is rounded up to 16 bytes. */
extern "C" __global__ void *emulated_allocate(size_t size)
{
    size_t page = 4096, bytes = (size + 15) / 16 * 16, pages = (bytes + page - 1) / page * page;
    char *begin = (char *)mmap(NULL, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED || mprotect(begin + page, pages, PROT_READ | PROT_WRITE))
        return NULL;
    return begin + page + pages - bytes;
}

extern "C" __global__ void emulated_free(void *p, size_t size)
{
    size_t page = 4096, bytes = (size + 15) / 16 * 16, pages = (bytes + page - 1) / page * page;
    munmap((char *)p - (pages - bytes) - page, pages + 2 * page);
}
