/* Runs nodes on a pool of threads.

   The thread that Python calls from computes small phases alone. For a large one it opens the pool's gate, through which the
   waiting workers come in; all take units from one counter until none are left. Then it closes the gate and waits for those that
   came in, so a worker that the system has not woken yet holds nothing up. Workers spin for a moment before they sleep: the next
   large phase is usually some microseconds away.

   Several connections share a pool. Who finds it taken computes the phase alone instead of waiting. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#if defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "kernel.h"
#include "matmul.h"

#define MOST_THREADS 256
#define WORKER_SPINS 20000 /* some 50 microseconds */
#define LEADER_SPINS 2000
#define SMALLEST_PART 4000 /* nanoseconds */
#define LARGEST_PART 5000000

extern const struct kernel *const kernels[];
extern const int kernel_count;

/* One phase that is being computed. */
struct job {
    const struct node *node;
    const struct phase *phase;
    atomic_llong next;    /* the first unit that no thread has taken */
    int64_t grain;
    int64_t deadline;     /* nanoseconds of the clock */
    atomic_int *outcome;
    uint8_t *scratch;
    int64_t shared, own;
};

struct pool {
    int threads;          /* with the one that calls */
    int started;
    pthread_t thread[MOST_THREADS];
    pthread_mutex_t busy; /* whose phase the workers compute */
    pthread_mutex_t lock; /* of `wake` */
    pthread_cond_t wake;
    /* twice the number of jobs so far, odd while one is open, times 2^16; the low bits count the workers inside */
    atomic_ullong gate;
    atomic_int sleepers;
    atomic_bool stopping;
    struct job job;
    uint8_t *spare; /* scratch memory that no run has, which the next one takes; under `lock` */
    int64_t spare_size;
};

#define MOST_SPARE (256ll << 20) /* bytes of scratch memory that are kept */
#define INSIDE 0xFFFFull
#define TURN 0x10000ull

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static bool is_open(unsigned long long gate) { return gate / TURN % 2 == 1; }

/* Take units until there are none, something went wrong, or time is up. */
static void take_units(struct job *job, int thread)
{
    struct work work = {job->scratch, job->scratch + job->shared + thread * job->own, job->outcome};
    int64_t units = job->phase->units;
    while (atomic_load_explicit(job->outcome, memory_order_relaxed) == DONE) {
        int64_t first = atomic_fetch_add(&job->next, job->grain);
        if (first >= units)
            return;
        job->phase->run(job->node, first, min64(first + job->grain, units), &work);
        if (first + job->grain < units && now() > job->deadline) {
            int done = DONE;
            atomic_compare_exchange_strong(job->outcome, &done, TIME_IS_UP);
        }
    }
}

struct worker_of {
    struct pool *pool;
    int thread;
};

/* Wait until the gate is open for a job that this worker has not seen; false: the pool ends. */
static bool wait_for_job(struct pool *pool, unsigned long long seen)
{
    for (int i = 0; i < WORKER_SPINS; i++) {
        unsigned long long gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
        if (gate / TURN != seen && is_open(gate))
            return true;
        if (atomic_load_explicit(&pool->stopping, memory_order_relaxed))
            return false;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    for (;;) {
        unsigned long long gate = atomic_load(&pool->gate);
        if (atomic_load(&pool->stopping) || (gate / TURN != seen && is_open(gate)))
            break;
        pthread_cond_wait(&pool->wake, &pool->lock);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
    return !atomic_load(&pool->stopping);
}

static void *worker(void *argument)
{
    struct worker_of self = *(struct worker_of *)argument;
    free(argument);
    struct pool *pool = self.pool;
    unsigned long long seen = 0;
    while (wait_for_job(pool, seen)) {
        unsigned long long gate = atomic_load(&pool->gate);
        while (is_open(gate) && !atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1))
            ;
        seen = gate / TURN;
        if (!is_open(gate))
            continue; /* closed in the meantime */
        take_units(&pool->job, self.thread);
        atomic_fetch_sub(&pool->gate, 1);
    }
    return NULL;
}

struct pool *pool_new(int threads)
{
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    pthread_mutex_init(&pool->busy, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    return pool;
}

/* Start the workers, at the first large phase: a process that only forks, or computes little, has none. */
static void start_workers(struct pool *pool)
{
    for (int thread = 1; thread < pool->threads; thread++) {
        struct worker_of *argument = malloc(sizeof *argument);
        if (!argument)
            break;
        *argument = (struct worker_of){pool, thread};
        if (pthread_create(&pool->thread[pool->started], NULL, worker, argument)) {
            free(argument);
            break;
        }
        pool->started++;
    }
    pool->threads = pool->started + 1;
}

void pool_free(struct pool *pool)
{
    atomic_store(&pool->stopping, true);
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pthread_mutex_destroy(&pool->busy);
    free(pool->spare);
    free(pool);
}

/* Compute a phase with the workers, whose gate this thread may open. */
static void share(struct pool *pool, struct job *job)
{
    pool->job.node = job->node;
    pool->job.phase = job->phase;
    pool->job.grain = job->grain;
    pool->job.deadline = job->deadline;
    pool->job.outcome = job->outcome;
    pool->job.scratch = job->scratch;
    pool->job.shared = job->shared;
    pool->job.own = job->own;
    atomic_store(&pool->job.next, atomic_load(&job->next));
    atomic_fetch_add(&pool->gate, TURN);
    if (atomic_load(&pool->sleepers)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    take_units(&pool->job, 0);
    atomic_fetch_add(&pool->gate, TURN);
    for (int i = 0; atomic_load(&pool->gate) & INSIDE; i++) {
        if (i < LEADER_SPINS)
            relax();
        else
            sched_yield();
    }
    atomic_store(&job->next, atomic_load(&pool->job.next));
}

static void compute_phase(struct pool *pool, struct job *job)
{
    int64_t units = job->phase->units - atomic_load(&job->next), cost = job->phase->cost;
    /* several parts for each thread even out what one of them lacks; none so small that handing it out costs more than it, none
       so large that a run could not be stopped */
    job->grain = min64(units / (pool->threads * 8ll), max64(1, LARGEST_PART / cost));
    job->grain = max64(job->grain, 1 + SMALLEST_PART / cost);
    if (job->grain < units && pool->threads > 1 && pthread_mutex_trylock(&pool->busy) == 0) {
        if (!pool->started)
            start_workers(pool);
        share(pool, job);
        pthread_mutex_unlock(&pool->busy);
    } else {
        take_units(job, 0);
    }
}

/* Bytes of scratch memory that a node needs. */
static int64_t scratch_of(const struct geometry *g, int threads) { return aligned(g->shared) + threads * aligned(g->own); }

/* Where scratch memory of no bytes lies: an operation on no bytes wants an address all the same (C11 7.24.1). */
static _Alignas(64) uint8_t nothing[64];

static uint8_t *scratch_memory(const struct run *run) { return run->scratch ? run->scratch : nothing; }

/* Get the scratch memory that the largest node needs, once for a run: fresh pages cost more than most nodes. */
static bool make_room(struct pool *pool, struct run *run)
{
    int64_t size = 0;
    for (int64_t i = 0; i < run->count; i++)
        size = max64(size, scratch_of(run->nodes[i].of, pool->threads));
    if (size <= run->scratch_size)
        return true;
    pthread_mutex_lock(&pool->lock);
    if (pool->spare_size >= size) {
        run->scratch = pool->spare;
        run->scratch_size = pool->spare_size;
        pool->spare = NULL;
        pool->spare_size = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!run->scratch) {
        run->scratch = aligned_alloc(64, aligned(size));
        run->scratch_size = run->scratch ? aligned(size) : 0;
    }
    return run->scratch;
}

/* Compute a node whose phases are all small, on this thread. */
static void run_small(const struct node *node, uint8_t *scratch, atomic_int *outcome)
{
    const struct geometry *g = node->of;
    struct work work = {scratch, scratch + aligned(g->shared), outcome};
    /* a phase that met a bad index has not left what the next one reads */
    for (int i = 0; i < g->phases && atomic_load_explicit(outcome, memory_order_relaxed) == DONE; i++)
        g->phase[i].run(node, 0, g->phase[i].units, &work);
}

/* Compute nodes from where the run has come to; TIME_IS_UP: call again to go on. */
int run_some(struct pool *pool, struct run *run, int64_t nanoseconds)
{
    int64_t deadline = now() + nanoseconds;
    atomic_int outcome = DONE;
    if (!make_room(pool, run))
        return NO_MEMORY;
    while (run->node < run->count) {
        const struct node *node = run->nodes + run->node;
        const struct geometry *g = node->of;
        if (g->small) { /* most nodes of a token: no counter, and a look at the clock now and then */
            run_small(node, scratch_memory(run), &outcome);
            if (atomic_load_explicit(&outcome, memory_order_relaxed) != DONE)
                return BAD_INDEX;
            if ((++run->node & 63) == 0 && run->node < run->count && now() > deadline)
                return TIME_IS_UP;
            continue;
        }
        struct job job = {.node = node, .phase = &g->phase[run->phase], .deadline = deadline, .outcome = &outcome,
                          .scratch = scratch_memory(run), .shared = aligned(g->shared), .own = aligned(g->own)};
        atomic_init(&job.next, run->unit);
        compute_phase(pool, &job);
        if (atomic_load(&outcome) == BAD_INDEX)
            return BAD_INDEX;
        run->unit = atomic_load(&job.next);
        if (run->unit >= job.phase->units) {
            run->unit = 0;
            if (++run->phase == g->phases) {
                run->phase = 0;
                run->node++;
            }
            atomic_store(&outcome, DONE);
        }
        if (run->node < run->count && (atomic_load(&outcome) == TIME_IS_UP || ((run->node & 15) == 0 && now() > deadline)))
            return TIME_IS_UP;
    }
    return DONE;
}

/* Pack the weights of a geometry that can be (`bytes_packed`), with the workers. */
void pack_weights(struct pool *pool, const struct geometry *g, uint8_t *weights, uint8_t *to)
{
    atomic_int outcome = DONE;
    struct node node = {.of = g, .dst = to, .src = {weights}};
    struct phase phase = {pack_groups, g->src[0].ne[1] / PACKED_ROWS, PACKED_ROWS * g->src[0].ne[0]};
    struct job job = {.node = &node, .phase = &phase, .deadline = INT64_MAX, .outcome = &outcome};
    atomic_init(&job.next, 0);
    compute_phase(pool, &job);
}

/* Give back what a run has taken; the largest scratch memory is kept for the next one. */
void run_end(struct pool *pool, struct run *run)
{
    uint8_t *left = run->scratch;
    pthread_mutex_lock(&pool->lock);
    if (run->scratch_size > pool->spare_size && run->scratch_size <= MOST_SPARE) {
        left = pool->spare;
        pool->spare = run->scratch;
        pool->spare_size = run->scratch_size;
    }
    pthread_mutex_unlock(&pool->lock);
    free(left);
    run->scratch = NULL;
    run->scratch_size = 0;
}

/* Compute all nodes of a `struct again`; unless that is DONE, or NOT_BEGUN, its run is for the caller to go on with or to end. */
int run_again(void *of)
{
    struct again *again = of;
    if (again->changes && *again->changes != again->known)
        return NOT_BEGUN;
    again->run.node = again->run.phase = again->run.unit = 0;
    int outcome = run_some(again->pool, &again->run, again->nanoseconds);
    if (outcome == DONE)
        run_end(again->pool, &again->run);
    return outcome;
}

/* Whether each phase takes less than handing it out is worth. */
static bool is_small(const struct geometry *g)
{
    for (int i = 0; i < g->phases; i++)
        if (g->phase[i].units > SMALLEST_PART / g->phase[i].cost)
            return false;
    return true;
}

/* Find the kernel of a geometry and let it plan; 0 where none computes it. */
int plan_geometry(struct geometry *geometry)
{
    geometry->phases = 0;
    geometry->shared = geometry->own = 0;
    for (int i = 0; i < kernel_count; i++)
        if (kernels[i]->op == geometry->op) {
            int planned = kernels[i]->plan(geometry);
            geometry->small = planned && is_small(geometry);
            return planned;
        }
    return 0;
}

/* Whether this processor has the instructions that this module was compiled with. */
int runs_here(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
#if defined(__AVX512VNNI__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
#elif defined(__AVX2__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#elif defined(__ARM_FEATURE_DOTPROD) && defined(__linux__)
    /* bits 20 and 8 of the kernel's list (its "ARM64 ELF hwcaps"): products of bytes, and the atomic operations of ARMv8.1, which a
       compiler that may use ARMv8.2 makes use of as well; headers of old systems have no names for them */
    return (getauxval(AT_HWCAP) >> 20 & getauxval(AT_HWCAP) >> 8 & 1) != 0;
#endif
    return 1;
}
