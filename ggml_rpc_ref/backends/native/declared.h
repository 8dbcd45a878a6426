/* What kernels compute, and how Python starts them. Written by `ggml-rpc-ref gen` from the rows of types and ops. */

/* Type, dimensions and strides of a tensor, in ggml's order; type -1: there is no such tensor. */
struct layout {
    int64_t ne[4];
    int64_t nb[4];
    int32_t type;
    int32_t unused;
};

struct work;
struct node;
typedef void (*phase_function)(const struct node *node, int64_t first, int64_t last, const struct work *work);

/* Part of an operation that threads share: units first to last may be computed by any thread in any order. All units of a
   phase are done before the next phase begins. */
struct phase {
    phase_function run;
    int64_t units;
    int64_t cost; /* of a unit, about, in nanoseconds of one thread */
};

/* All of an operation but where its tensors lie; nodes of one kind share it. Python fills what stands before `phases`. */
struct geometry {
    int32_t op;
    int32_t op_params[16];
    int32_t n_src;
    uint64_t changes;   /* of what the op means in the client's version: a bit for each `enum change` */
    struct layout dst;
    struct layout src[10];
    int32_t phases;
    int32_t small;      /* whether one thread computes it in less time than it takes to ask another */
    struct phase phase[4];
    int64_t shared;     /* bytes of scratch memory that all threads share */
    int64_t own;        /* bytes of scratch memory for each thread */
};

/* One operation to perform. */
struct node {
    const struct geometry *of;
    uint8_t *dst;
    uint8_t *src[10];
    const uint8_t *packed; /* src[0] once more, laid out for a few columns (`pack_weights`); or NULL */
};

/* Nodes that are computed in order, and how far that has come. */
struct run {
    const struct node *nodes;
    int64_t count;
    int64_t node;   /* the first node that is not done */
    int64_t phase;  /* its first phase that is not done */
    int64_t unit;   /* the first unit of that phase that no thread has taken */
    uint8_t *scratch;
    int64_t scratch_size;
};

enum outcome { NOT_BEGUN = -1, DONE, TIME_IS_UP, BAD_INDEX, NO_MEMORY };

/* A run that is begun again by who knows nothing of kernels (net/again.c), by the address of `run_again` and its own. */
struct again {
    struct pool *pool;
    struct run run;
    int64_t nanoseconds;      /* that a call may take */
    const int64_t *changes;   /* counts what may have changed that the nodes point to; or NULL */
    int64_t known;            /* `changes` when they were pointed to it */
};

struct pool;
struct pool *pool_new(int threads);
void pool_free(struct pool *pool);
int run_some(struct pool *pool, struct run *run, int64_t nanoseconds);
void run_end(struct pool *pool, struct run *run);
int run_again(void *again);
int plan_geometry(struct geometry *geometry);
int64_t bytes_packed(const struct geometry *geometry); /* of its weights; 0: they are multiplied as they are */
void pack_weights(struct pool *pool, const struct geometry *geometry, uint8_t *weights, uint8_t *to);
int runs_here(void);
const char *made_from(void); /* a digest of the sources */

/* ---- what only the kernels see ---- */

#include "numbers.h"
