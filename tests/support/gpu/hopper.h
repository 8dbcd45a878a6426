/* What Hopper adds to the GPU made of threads: barriers with phases, tensor maps and copies of their boxes, products of a warpgroup.

   Included by emulated.h. What each function does is what the PTX ISA (mbarrier, cp.async.bulk.tensor, wgmma) and the CUDA driver API
   (cuTensorMapEncodeTiled) say of the instruction that kernels/shared/tensor_maps.cuh and wgmma.cuh have in its place; addresses,
   operands' words and the change of places in shared memory are computed here as the hardware does, from the bits.

   A copy or a product that was begun is done as late as a GPU may do it, at once, or at any time between, by the order of the threads:
   late shows who did not wait for it, early shows who gave it memory that was still in use. */
#pragma once

/* ------------------------------------------------------------------------------------------------------ shared memory */

enum { GUARD_AROUND_SHARED = 256, MOST_SHARED = 227 * 1024, WINDOW = 256 * 1024 };

/* Shared memory as operands' words address it: 18 bits. What a block asks for begins at no multiple of 1024. */
static uint8_t window_of_shared[WINDOW] __align__(1024);

static inline uint32_t emulated_shared_address(const void *p)
{
    int64_t address = (const uint8_t *)p - window_of_shared;
    if (address < 0 || address >= WINDOW)
        fault("an address that is not in dynamic shared memory");
    return (uint32_t)address;
}

/* Pieces of 16 bytes change places by bits of the address: with swizzling of 32, 64 or 128 bytes, its bit 7, bits 7-8, or bits 7-9
   are added without carry to bits 4 and up. */
static inline uint32_t swizzled(uint32_t address, int bytes) { return address ^ ((address >> 7 & (uint32_t)(bytes / 16 - 1)) << 4); }

/* ----------------------------------------------------------------------------------------------------------- barriers */

/* Eight bytes of shared memory. */
struct emulated_barrier {
    uint64_t pending : 20, expected : 20, parity : 1, made : 2;
    int64_t bytes : 21;
};

enum { MADE = 2 };
static_assert(sizeof(struct emulated_barrier) == 8, "a barrier has 64 bits");

static struct {
    long phases;          /* that ended, of all barriers */
    int unseen[MOST_THREADS]; /* barriers that a thread has made and not shown to copies */
} barriers;

static inline struct emulated_barrier *barrier_at(uint64_t *p)
{
    struct emulated_barrier *b = (struct emulated_barrier *)p;
    if (emulated_shared_address(p) % 8)
        fault("a barrier at a misaligned address");
    if (b->made != MADE)
        fault("a barrier that was not made");
    return b;
}

static inline void end_phase(struct emulated_barrier *b)
{
    if (b->pending || b->bytes)
        return;
    b->pending = b->expected;
    b->parity ^= 1;
    barriers.phases++;
}

static inline void emulated_barrier_init(uint64_t *p, int arrivals)
{
    struct emulated_barrier made = {(uint64_t)arrivals, (uint64_t)arrivals, 0, MADE, 0};
    if (emulated_shared_address(p) % 8)
        fault("a barrier at a misaligned address");
    memcpy(p, &made, sizeof made);
    barriers.unseen[emulated.current]++;
}

static inline void emulated_fence_async() { barriers.unseen[emulated.current] = 0; }

/* `bytes` more are announced before the arrival. */
static inline void emulated_barrier_arrive(uint64_t *p, int bytes)
{
    struct emulated_barrier *b = barrier_at(p);
    if (!b->pending)
        fault("an arrival too many at a barrier");
    if (bytes + b->bytes >= 1 << 20)
        fault("more bytes announced than a barrier can count");
    b->bytes += bytes;
    b->pending--;
    end_phase(b);
}

static inline void emulated_barrier_wait(uint64_t *p, int parity)
{
    struct emulated_barrier *b = barrier_at(p);
    if (parity >> 1)
        fault("a parity that is neither 0 nor 1");
    while (b->parity == (unsigned)parity)
        wait_for(&barriers.phases);
}

/* -------------------------------------------------------------------------------------------------------------- boxes */

/* What `Emulated.tensor_map` packs. */
struct emulated_map {
    uint64_t address, length[4], stride[3]; /* of dimensions 1 to 3 */
    uint32_t box[4], swizzle, size;         /* bytes that change places; of an element */
    uint64_t mark;
};

enum { MAP_MARK = 0x70616D, MOST_BOXES = 64 };

static struct {
    struct {
        struct emulated_map map;
        uint32_t to;
        uint64_t *barrier;
        int64_t begin[4];
    } box[MOST_BOXES];
    int count;
} boxes;

/* Sixteen bytes of a row of a tensor, zeros beyond its end. */
static inline void read_piece(const struct emulated_map *m, const int64_t i[4], uint8_t piece[16])
{
    memset(piece, 0, 16);
    for (int n = 0; n < 4; n++)
        if (n && (i[n] < 0 || i[n] >= (int64_t)m->length[n]))
            return;
    for (int k = 0; k < 16 / (int)m->size; k++) {
        int64_t i0 = i[0] + k;
        const uint8_t *from = (const uint8_t *)m->address + i0 * m->size;
        for (int n = 1; n < 4; n++)
            from += i[n] * (int64_t)m->stride[n - 1];
        if (i0 >= 0 && i0 < (int64_t)m->length[0])
            memcpy(piece + k * m->size, from, m->size);
    }
}

/* Make one of the copies that were begun. */
static inline void bring_box(int which)
{
    auto box = boxes.box[which];
    const struct emulated_map *m = &box.map;
    uint32_t at = box.to, pieces = m->box[0] * m->size / 16;
    boxes.box[which] = boxes.box[--boxes.count];
    for (uint32_t c = 0; c < m->box[3]; c++)
        for (uint32_t b = 0; b < m->box[2]; b++)
            for (uint32_t a = 0; a < m->box[1]; a++)
                for (uint32_t piece = 0; piece < pieces; piece++, at += 16) {
                    int64_t i[4] = {box.begin[0] + piece * 16 / m->size, box.begin[1] + a, box.begin[2] + b, box.begin[3] + c};
                    read_piece(m, i, window_of_shared + swizzled(at, (int)m->swizzle));
                }
    struct emulated_barrier *b = (struct emulated_barrier *)box.barrier;
    b->bytes -= (int64_t)(at - box.to);
    end_phase(b);
}

/* What goes on beside the threads: returns whether a copy was made. The threads can go no further: the oldest one, or any. */
static inline bool bring_any_box()
{
    if (!boxes.count)
        return false;
    bring_box(emulated.kind < EITHER ? 0 : (int)(next_random() % (uint32_t)boxes.count));
    return true;
}

static inline void emulated_copy_box(const void *map, void *to, uint64_t *p, int i0, int i1, int i2, int i3)
{
    struct emulated_map m;
    memcpy(&m, map, sizeof m);
    if (m.mark != MAP_MARK || (uintptr_t)map % 64)
        fault("no tensor map, or one at a misaligned address");
    if (emulated_shared_address(to) % 128)
        fault("a box at a misaligned address");
    for (int thread = 0; thread < emulated.threads; thread++)
        if (barriers.unseen[thread])
            fault("a copy that can't see all barriers");
    barrier_at(p);
    if (boxes.count == MOST_BOXES)
        fault("more boxes than the emulation keeps");
    boxes.box[boxes.count++] = {m, emulated_shared_address(to), p, {i0, i1, i2, i3}};
    if (is_early())
        bring_box(boxes.count - 1);
}

/* ----------------------------------------------------------------------------------------------------------- products */

enum { MOST_PRODUCTS = 64, WARPS_OF_GROUP = 4 };

struct product {
    float *d;
    const int *place; /* NULL, or where results are: eight bytes of `d` each (ptx.h) */
    int n;
    uint64_t a, b;
    float (*widen)(uint16_t);
};

/* What a thread has begun. */
static struct {
    struct product product[MOST_PRODUCTS];
    int group[MOST_PRODUCTS], count, groups;
    bool fenced;
} begun[MOST_THREADS];

/* The products that warps of a warpgroup began, one after the other: all must begin the same. */
static struct {
    struct product product[MOST_PRODUCTS];
    long count, of_warp[WARPS_OF_GROUP];
} begun_together[MOST_THREADS / LANES_OF_WARP / WARPS_OF_GROUP];

/* Sixteen numbers of a row of an operand, from shared memory as its word says. */
static inline void read_operand(uint64_t word, int row, float (*widen)(uint16_t), float to[16])
{
    static const int swizzles[] = {16, 128, 64, 32};
    uint32_t begin = (uint32_t)(word & 0x3FFF) << 4, leading = (uint32_t)(word >> 16 & 0x3FFF) << 4;
    uint32_t stride = (uint32_t)(word >> 32 & 0x3FFF) << 4;
    int swizzle = swizzles[word >> 62];
    /* bits 49-51 would say how far eight rows begin from where the hardware counts them from */
    if (word >> 49 & 7 || begin >> 7 & (uint32_t)(swizzle / 16 - 1))
        fault("eight rows of an operand that do not begin where places change anew");
    for (int piece = 0; piece < 2; piece++) {
        uint32_t along = swizzle == 16 ? leading : 16; /* without swizzling, eight rows of one piece each lie together */
        uint32_t address = begin + (uint32_t)(row / 8) * stride + (uint32_t)(row % 8 * swizzle) + (uint32_t)piece * along;
        uint32_t at = swizzled(address, swizzle);
        uint16_t eight[8];
        if (at + 16 > WINDOW)
            fault("an operand of a product that is not in shared memory");
        memcpy(eight, window_of_shared + at, sizeof eight);
        for (int k = 0; k < 8; k++)
            to[8 * piece + k] = widen(eight[k]);
    }
}

static inline float *result(const struct product *p, int i) { return p->place ? p->d + 2 * p->place[i] : p->d + i; }

/* A thread's own results: d[4 n + 2 r + c] is row 16 w + g + 8 r, column 8 n + 2 t + c. */
static inline void make_product(const struct product *p)
{
    int warp = emulated.current / LANES_OF_WARP % WARPS_OF_GROUP, group = lane_now() / 4, t = lane_now() % 4;
    float a[2][16], b[16];
    for (int r = 0; r < 2; r++)
        read_operand(p->a, 16 * warp + group + 8 * r, p->widen, a[r]);
    for (int n = 0; n < p->n / 8; n++)
        for (int c = 0; c < 2; c++) {
            read_operand(p->b, 8 * n + 2 * t + c, p->widen, b);
            for (int r = 0; r < 2; r++) {
                float *d = result(p, 4 * n + 2 * r + c), sum = *d;
                for (int k = 0; k < 16; k++)
                    sum += a[r][k] * b[k];
                *d = sum;
            }
        }
}

static inline bool is_same(const struct product *a, const struct product *b)
{
    return a->n == b->n && a->a == b->a && a->b == b->b && a->widen == b->widen;
}

static inline void emulated_wgmma_fence() { begun[emulated.current].fenced = true; }

static inline void begin_product(float *d, const int *place, int n, uint64_t a, uint64_t b, float (*widen)(uint16_t))
{
    auto *mine = &begun[emulated.current];
    int warp = emulated.current / LANES_OF_WARP;
    auto *all = &begun_together[warp / WARPS_OF_GROUP];
    struct product p = {d, place, n, a, b, widen}, first;
    if (!mine->fenced)
        fault("a product before wgmma.fence");
    if (mine->count == MOST_PRODUCTS)
        fault("more products than the emulation keeps");
    memcpy(&first, together(0xffffffffu, &p, sizeof p)[0], sizeof first);
    if (!is_same(&first, &p))
        fault("lanes of a warp that begin different products");
    if (lane_now() == 0) {
        long number = all->of_warp[warp % WARPS_OF_GROUP]++;
        if (number == all->count)
            all->product[all->count++ % MOST_PRODUCTS] = p;
        else if (!is_same(&all->product[number % MOST_PRODUCTS], &p))
            fault("warps of a warpgroup that begin different products");
    }
    mine->product[mine->count] = p;
    mine->group[mine->count++] = mine->groups;
    if (is_early() && mine->count == 1) { /* they are made in turn */
        make_product(&p);
        mine->count = 0;
    }
}

static inline void emulated_wgmma(float *d, int n, uint64_t a, uint64_t b, float (*widen)(uint16_t))
{
    begin_product(d, NULL, n, a, b, widen);
}

static inline void emulated_wgmma_commit() { begun[emulated.current].groups++; }

static inline void emulated_wgmma_wait(int newest)
{
    auto *mine = &begun[emulated.current];
    int left = 0;
    for (int i = 0; i < mine->count; i++) {
        if (mine->group[i] < mine->groups - newest) {
            make_product(&mine->product[i]);
        } else {
            mine->group[left] = mine->group[i];
            mine->product[left++] = mine->product[i];
        }
    }
    mine->count = left;
    mine->fenced = false; /* what comes next may touch the results: another fence is wanted then */
    __syncwarp();         /* .sync.aligned: no lane goes on before all have waited */
}

/* ------------------------------------------------------------------------------------------------------------- blocks */

static inline void reset_hopper()
{
    memset(&barriers.unseen, 0, sizeof barriers.unseen);
    boxes.count = 0;
    for (int i = 0; i < emulated.threads; i++) {
        begun[i].count = begun[i].groups = 0;
        begun[i].fenced = false;
    }
    for (int i = 0; i < MOST_THREADS / LANES_OF_WARP / WARPS_OF_GROUP; i++) {
        begun_together[i].count = 0;
        memset(begun_together[i].of_warp, 0, sizeof begun_together[i].of_warp);
    }
}
