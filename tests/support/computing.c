/* Computes nodes that come on the standard input, so that kernels of another processor can be tried: compiled for it with them,
   linked statically and run by an emulator, with no Python there (emulated.py).

   Each node comes as a `struct asked`, then the bytes of its memories one after the other. The answer is the outcome, 64 bits,
   and all memories as they then are. Each memory lies between two pages that nobody may touch, and those that the node does not
   write on pages that nobody may write. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel.h"

enum { MEMORIES = 11, NOT_SUPPORTED = -2 };

struct asked {
    struct geometry of;
    int64_t packed;                       /* whether to multiply packed weights, where they can be packed */
    int64_t place;                        /* 0: at the end of its pages; 1: where they begin; 2: a byte later */
    int64_t memories;
    struct {
        int64_t size, written;
    } memory[MEMORIES];
    int64_t which[MEMORIES], offset[MEMORIES]; /* of dst, then of each source: its memory, or -1, and where in it it begins */
};

struct pages {
    uint8_t *all, *begin;
    int64_t size;
};

static int64_t page;

static void read_all(void *to, int64_t size)
{
    if (fread(to, 1, (size_t)size, stdin) != (size_t)size)
        exit(3);
}

static struct pages enclosed(int64_t size, int64_t place)
{
    struct pages p = {.size = (size + 1 + page - 1) / page * page + 2 * page};
    p.all = mmap(NULL, (size_t)p.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p.all == MAP_FAILED)
        exit(4);
    p.begin = place == 0 ? p.all + p.size - page - size : p.all + page + (place == 2);
    mprotect(p.all, (size_t)page, PROT_NONE);
    mprotect(p.all + p.size - page, (size_t)page, PROT_NONE);
    return p;
}

static int64_t computed(struct asked *asked, const struct pages *memory, struct pool *pool)
{
    if (!plan_geometry(&asked->of))
        return NOT_SUPPORTED;
    if (!asked->memories) /* who asks wants to know only that */
        return DONE;
    uint8_t *at[MEMORIES], *packed = NULL;
    for (int i = 0; i < MEMORIES; i++)
        at[i] = asked->which[i] < 0 ? NULL : memory[asked->which[i]].begin + asked->offset[i];
    struct node node = {.of = &asked->of, .dst = at[0]};
    memcpy(node.src, at + 1, sizeof node.src);
    if (asked->packed && bytes_packed(&asked->of)) {
        packed = aligned_alloc(64, (size_t)aligned(bytes_packed(&asked->of)));
        pack_weights(pool, &asked->of, node.src[0], packed);
        node.packed = packed;
    }
    struct run run = {.nodes = &node, .count = 1};
    int64_t outcome;
    do
        outcome = run_some(pool, &run, 1000000000);
    while (outcome == TIME_IS_UP);
    run_end(pool, &run);
    free(packed);
    return outcome;
}

int main(void)
{
    static struct asked asked;
    struct pool *pool = pool_new(2);
    page = sysconf(_SC_PAGESIZE);
    if (!runs_here())
        return 5;
    while (fread(&asked, 1, sizeof asked, stdin) == sizeof asked) {
        struct pages memory[MEMORIES];
        for (int i = 0; i < asked.memories; i++) {
            memory[i] = enclosed(asked.memory[i].size, asked.place);
            read_all(memory[i].begin, asked.memory[i].size);
            if (!asked.memory[i].written)
                mprotect(memory[i].all + page, (size_t)(memory[i].size - 2 * page), PROT_READ);
        }
        int64_t outcome = computed(&asked, memory, pool);
        fwrite(&outcome, sizeof outcome, 1, stdout);
        for (int i = 0; i < asked.memories; i++) {
            fwrite(memory[i].begin, 1, (size_t)asked.memory[i].size, stdout);
            munmap(memory[i].all, (size_t)memory[i].size);
        }
        fflush(stdout);
    }
    pool_free(pool);
    return 0;
}
