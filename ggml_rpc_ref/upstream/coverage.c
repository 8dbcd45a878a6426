/* Linked into each library of a build with -fsanitize-coverage=trace-pc, whose basic blocks call what is below: it notes which edges
   (a block after another one) were taken in the file that GGML_RPC_REF_COVERAGE names, which `ggml-rpc-ref fuzz` maps as well.
   Linux. Link it into a server of your own in the same way; it must not itself be compiled with that option. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define EDGE_BITS 18 /* fuzz/edges.py has the same number */
#define EDGES (1u << EDGE_BITS)

/* where this library begins: a block's offset from here is the same in every process, its address is not */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));

static unsigned char nowhere[EDGES];
static unsigned char *edges = nowhere;
static uint32_t salt; /* so that blocks at the same offset of two libraries are two */
static __thread uint32_t before __attribute__((tls_model("initial-exec")));

__attribute__((constructor(101))) static void map_edges(void) {
    Dl_info own = {0};
    const char *path = getenv("GGML_RPC_REF_COVERAGE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat status;
    if (dladdr(__ehdr_start, &own) && own.dli_fname) {
        const char *slash = strrchr(own.dli_fname, '/');
        for (const char *c = slash ? slash + 1 : own.dli_fname; *c; c++) salt = salt * 31 + (unsigned char) *c;
    }
    if (file < 0) return;
    if (fstat(file, &status) == 0 && status.st_size == EDGES) {
        void *shared = mmap(0, EDGES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (shared != MAP_FAILED) edges = shared;
    }
    close(file);
}

__attribute__((visibility("hidden"))) void __sanitizer_cov_trace_pc(void) {
    uint32_t offset = (uint32_t) ((uintptr_t) __builtin_return_address(0) - (uintptr_t) __ehdr_start);
    uint32_t block = (offset ^ salt) * 2654435761u; /* Knuth's multiplicative hash: 2^32 / golden ratio */
    unsigned char *edge = edges + ((block ^ before) >> (32 - EDGE_BITS));
    if (!*edge) *edge = 1; /* a store to shared memory at every block would take more time than the blocks do */
    before = block >> 1;   /* halved, so that A after B is another edge than B after A, and A after A is one at all */
}
